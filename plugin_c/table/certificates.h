/* Certificates: stable objects, each with parsed OpenSSL material behind an atomic pointer, so that a rotated Secret touches
 * neither trie nor handshakes under way.  With tls.c the only files that include OpenSSL. */
#ifndef ATSK_CERTIFICATES_H
#define ATSK_CERTIFICATES_H

#include "base/atsk_base.h"

ATSK_BEGIN_DECLS

struct atsk_certificate; /* stable; may have no material (its Secret is missing or broken) */
struct atsk_certificate_material;

/* What a host's TLS needs: its certificates in order of preference (an RSA and an ECDSA pair may both be served).
 * Immutable, part of the trie's value; more of a TLS policy (versions, client certificates) joins here. */
struct atsk_tls_policy {
  uint32_t n_certificates; /* 1.. */
  struct atsk_certificate *certificates[];
};

/* --- reader, inside a read section ------------------------------------------------------------------------------------- */

/* Gives `ssl` (SSL *) the certificate, chain and key of every entry that has material; OpenSSL takes references of its own.
 * ATSK_OK if at least one was given, ATSK_MISS if none has material, ATSK_E_CERT if OpenSSL refused. */
enum atsk_status atsk_tls_policy_apply(const struct atsk_tls_policy *policy, void *ssl) ATSK_MUST_CHECK;

/* --- writer, inside publish.c only ---------------------------------------------------------------------------------------- */

struct atsk_retired; /* retire.h */

struct atsk_certificate *atsk_certificate_create(uint64_t id); /* NULL: no memory */

/* What parsing keeps between certificates; one writer.  NULL: no memory. */
struct atsk_certificate_parser;
struct atsk_certificate_parser *atsk_certificate_parser_create(void);
void atsk_certificate_parser_destroy(struct atsk_certificate_parser *parser); /* NULL is legal */

/* Parses a DER chain (leaf first, certificates in a row) and a DER private key (PKCS#8 or traditional), checks that they belong
 * together and that OpenSSL accepts them at its security level.  ATSK_E_CERT, ATSK_E_KEY, ATSK_E_NOMEM. */
enum atsk_status atsk_certificate_material_create(struct atsk_certificate_parser *parser, struct atsk_span chain_der,
                                                  struct atsk_span key_der, struct atsk_certificate_material **out) ATSK_MUST_CHECK;
void atsk_certificate_material_destroy(struct atsk_certificate_material *material); /* never swapped in; NULL is legal */

/* Takes `material` (NULL: none), and adds the former to *retired.  Cannot fail. */
void atsk_certificate_swap(struct atsk_certificate *certificate, struct atsk_certificate_material *material,
                           struct atsk_retired **retired);
void atsk_certificate_retire(struct atsk_certificate *certificate, struct atsk_retired **retired); /* with its material */
void atsk_certificate_destroy(struct atsk_certificate *certificate); /* that no reader ever saw; NULL is legal */
uint64_t atsk_certificate_id(const struct atsk_certificate *certificate);

/* What a certificate's material was made of, in memory that atsk_certificate_der_free() wipes. */
struct atsk_certificate_der {
  uint8_t *chain; /* leaf first */
  size_t chain_len;
  uint8_t *key;
  size_t key_len;
};

/* Encodes the current material; inside a read section, and some 50 microseconds long.  ATSK_MISS: there is none; ATSK_E_NOMEM. */
enum atsk_status atsk_certificate_encode(const struct atsk_certificate *certificate,
                                         struct atsk_certificate_der *out) ATSK_MUST_CHECK;
void atsk_certificate_der_free(struct atsk_certificate_der *der);

ATSK_END_DECLS
#endif
