/* Certificates and keys as parsed OpenSSL objects behind an atomic pointer.  Readers: TLS handshakes, in a read section; writer:
 * publish.c.  Nothing here logs: the caller gets a status, and no entry is left on OpenSSL's error queue, where ATS would
 * blame it on a connection.  Key bytes are OpenSSL's, which wipes them when it frees them. */
#include "table/certificates.h"

#include "base/retire.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include <openssl/core_dispatch.h>
#include <openssl/decoder.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#define CHAIN_MAX 32 /* certificates; far more than any client accepts */

struct atsk_certificate_material {
  X509 *leaf;
  STACK_OF(X509) * chain; /* what follows the leaf, in the order given; may be empty */
  EVP_PKEY *key;
  struct atsk_retired retired;
};

/* What parsing needs, made once: OpenSSL 3.0 takes 0.4 ms to collect the decoders of one private key and 0.1 ms to make a context,
 * which is seconds at 5,000 certificates. */
struct atsk_certificate_parser {
  OSSL_DECODER_CTX *decoder; /* of private keys; leaves them in `key` */
  EVP_PKEY *key;
  SSL_CTX *server; /* would it serve this? */
};

struct atsk_certificate {
  uint64_t id;
  _Atomic(struct atsk_certificate_material *) material; /* NULL: none */
  struct atsk_retired retired;
};

/* The material that a reader sees. */
static const struct atsk_certificate_material *
material_load(const struct atsk_certificate *certificate)
{
  /* acquire: the material before the pointer to it.  Pairs with: the exchange in atsk_certificate_swap(). */
  return atomic_load_explicit(&((struct atsk_certificate *)(uintptr_t)certificate)->material, memory_order_acquire);
}

enum atsk_status
atsk_tls_policy_apply(const struct atsk_tls_policy *policy, void *ssl)
{
  bool is_cleared = false;
  ERR_set_mark();
  enum atsk_status st = ATSK_MISS;
  /* Backwards: of two certificates of one key type the later replaces the earlier, and the preferred one is to stay. */
  for (uint32_t i = policy->n_certificates; i-- > 0;) {
    const struct atsk_certificate_material *material = material_load(policy->certificates[i]);
    if (material == NULL) {
      continue;
    }
    if (!is_cleared) { /* else a client without our key type would be shown the context's certificate, another host's */
      SSL_certs_clear(ssl);
      is_cleared = true;
    }
    if (SSL_use_cert_and_key(ssl, material->leaf, material->key, material->chain, 1) == 1) {
      st = ATSK_OK;
    } else if (st == ATSK_MISS) {
      st = ATSK_E_CERT;
    }
  }
  ERR_pop_to_mark();
  return st;
}

struct atsk_certificate_parser *
atsk_certificate_parser_create(void)
{
  struct atsk_certificate_parser *parser = malloc(sizeof *parser);
  if (parser == NULL) {
    return NULL;
  }
  ERR_set_mark();
  parser->key    = NULL;
  parser->server = SSL_CTX_new(TLS_server_method());
  /* Private keys alone: for a key pair the decoder would be content with the public half. */
  parser->decoder = OSSL_DECODER_CTX_new_for_pkey(&parser->key, "DER", NULL, NULL, OSSL_KEYMGMT_SELECT_PRIVATE_KEY, NULL, NULL);
  ERR_pop_to_mark();
  if (parser->server == NULL || parser->decoder == NULL) {
    atsk_certificate_parser_destroy(parser);
    return NULL;
  }
  if (SSL_CTX_get_security_level(parser->server) < 2) { /* what Debian and OpenSSL 3.2 have by default */
    SSL_CTX_set_security_level(parser->server, 2);
  }
  return parser;
}

void
atsk_certificate_parser_destroy(struct atsk_certificate_parser *parser)
{
  if (parser != NULL) {
    OSSL_DECODER_CTX_free(parser->decoder);
    SSL_CTX_free(parser->server);
    free(parser);
  }
}

/* Whether OpenSSL, as this process configured it, would serve these: key type, key size, signature digests, key of the
 * certificate.  A context asks exactly what a handshake would. */
static enum atsk_status
material_check(struct atsk_certificate_parser *parser, const struct atsk_certificate_material *material)
{
  if (X509_check_private_key(material->leaf, material->key) != 1) {
    return ATSK_E_KEY;
  }
  int ok = SSL_CTX_use_cert_and_key(parser->server, material->leaf, material->key, material->chain, 1);
  return ok == 1 ? ATSK_OK : ATSK_E_CERT;
}

/* The one private key that `der` is, with nothing behind it; NULL: it is none, or is encrypted. */
static EVP_PKEY *
key_parse(struct atsk_certificate_parser *parser, struct atsk_span der)
{
  const unsigned char *at = der.ptr;
  size_t left             = der.len;
  int ok                  = OSSL_DECODER_from_data(parser->decoder, &at, &left);
  EVP_PKEY *key           = parser->key;
  parser->key             = NULL;
  if (ok != 1 || left != 0) {
    EVP_PKEY_free(key);
    return NULL;
  }
  return key;
}

static enum atsk_status
chain_parse(struct atsk_span der, struct atsk_certificate_material *out)
{
  const unsigned char *at  = der.ptr;
  const unsigned char *end = der.ptr + der.len;
  while (at < end) {
    if (out->leaf != NULL && sk_X509_num(out->chain) >= CHAIN_MAX) {
      return ATSK_E_CERT;
    }
    X509 *certificate = d2i_X509(NULL, &at, end - at);
    if (certificate == NULL) {
      return ATSK_E_CERT;
    }
    if (out->leaf == NULL) {
      out->leaf = certificate;
    } else if (sk_X509_push(out->chain, certificate) == 0) {
      X509_free(certificate);
      return ATSK_E_NOMEM;
    }
  }
  return out->leaf == NULL ? ATSK_E_CERT : ATSK_OK;
}

static enum atsk_status
material_parse(struct atsk_certificate_parser *parser, struct atsk_span chain_der, struct atsk_span key_der,
               struct atsk_certificate_material *out)
{
  if (chain_der.len == 0 || chain_der.len > LONG_MAX) {
    return ATSK_E_CERT;
  }
  if (key_der.len == 0 || key_der.len > LONG_MAX) {
    return ATSK_E_KEY;
  }
  out->chain = sk_X509_new_null();
  if (out->chain == NULL) {
    return ATSK_E_NOMEM;
  }
  enum atsk_status st = chain_parse(chain_der, out);
  if (st != ATSK_OK) {
    return st;
  }
  out->key = key_parse(parser, key_der);
  return out->key == NULL ? ATSK_E_KEY : material_check(parser, out);
}

enum atsk_status
atsk_certificate_material_create(struct atsk_certificate_parser *parser, struct atsk_span chain_der, struct atsk_span key_der,
                                 struct atsk_certificate_material **out)
{
  struct atsk_certificate_material *material = malloc(sizeof *material);
  if (material == NULL) {
    return ATSK_E_NOMEM;
  }
  *material = (struct atsk_certificate_material){.leaf = NULL};
  ERR_set_mark();
  enum atsk_status st = material_parse(parser, chain_der, key_der, material);
  ERR_pop_to_mark();
  if (st != ATSK_OK) {
    atsk_certificate_material_destroy(material);
    return st;
  }
  *out = material;
  return ATSK_OK;
}

void
atsk_certificate_material_destroy(struct atsk_certificate_material *material)
{
  if (material == NULL) {
    return;
  }
  X509_free(material->leaf);
  sk_X509_pop_free(material->chain, X509_free);
  EVP_PKEY_free(material->key);
  atsk_reclaim_memory(material);
}

struct atsk_certificate *
atsk_certificate_create(uint64_t id)
{
  struct atsk_certificate *certificate = malloc(sizeof *certificate);
  if (certificate != NULL) {
    certificate->id = id;
    /* relaxed: nobody else has it yet.  Published by: the root's exchange in atsk_commit_publish(). */
    atomic_store_explicit(&certificate->material, NULL, memory_order_relaxed);
  }
  return certificate;
}

static void
material_reclaim(struct atsk_retired *retired)
{
  atsk_certificate_material_destroy(ATSK_OWNER_OF(retired, struct atsk_certificate_material, retired));
}

static void
certificate_reclaim(struct atsk_retired *retired)
{
  atsk_certificate_destroy(ATSK_OWNER_OF(retired, struct atsk_certificate, retired));
}

void
atsk_certificate_swap(struct atsk_certificate *certificate, struct atsk_certificate_material *material,
                      struct atsk_retired **retired)
{
  /* acq_rel: release makes the material visible before the pointer; acquire lets the former be touched.
   * Pairs with: the acquire load in material_load(). */
  struct atsk_certificate_material *former = atomic_exchange_explicit(&certificate->material, material, memory_order_acq_rel);
  if (former != NULL) {
    atsk_retire(retired, &former->retired, material_reclaim);
  }
}

void
atsk_certificate_retire(struct atsk_certificate *certificate, struct atsk_retired **retired)
{
  atsk_retire(retired, &certificate->retired, certificate_reclaim);
}

void
atsk_certificate_destroy(struct atsk_certificate *certificate)
{
  if (certificate == NULL) {
    return;
  }
  /* relaxed: a grace period lies between the last swap and here */
  atsk_certificate_material_destroy(atomic_load_explicit(&certificate->material, memory_order_relaxed));
  atsk_reclaim_memory(certificate);
}

uint64_t
atsk_certificate_id(const struct atsk_certificate *certificate)
{
  return certificate->id;
}

static enum atsk_status
chain_encode(const struct atsk_certificate_material *material, struct atsk_certificate_der *out)
{
  int n      = sk_X509_num(material->chain);
  int leaf   = i2d_X509(material->leaf, NULL);
  size_t len = leaf > 0 ? (size_t)leaf : 0;
  for (int i = 0; i < n; i++) {
    int one = i2d_X509(sk_X509_value(material->chain, i), NULL);
    len += one > 0 ? (size_t)one : 0;
  }
  out->chain = OPENSSL_malloc(len);
  if (out->chain == NULL) {
    return ATSK_E_NOMEM;
  }
  unsigned char *at = out->chain;
  (void)i2d_X509(material->leaf, &at);
  for (int i = 0; i < n; i++) {
    (void)i2d_X509(sk_X509_value(material->chain, i), &at);
  }
  out->chain_len = (size_t)(at - out->chain);
  return ATSK_OK;
}

enum atsk_status
atsk_certificate_encode(const struct atsk_certificate *certificate, struct atsk_certificate_der *out)
{
  const struct atsk_certificate_material *material = material_load(certificate);
  if (material == NULL) {
    return ATSK_MISS;
  }
  struct atsk_certificate_der der = {.chain = NULL};
  ERR_set_mark();
  enum atsk_status st = chain_encode(material, &der);
  int key_len         = st == ATSK_OK ? i2d_PrivateKey(material->key, &der.key) : -1;
  ERR_pop_to_mark();
  if (key_len <= 0) {
    atsk_certificate_der_free(&der);
    return ATSK_E_NOMEM;
  }
  der.key_len = (size_t)key_len;
  *out        = der;
  return ATSK_OK;
}

void
atsk_certificate_der_free(struct atsk_certificate_der *der)
{
  OPENSSL_free(der->chain);
  OPENSSL_clear_free(der->key, der->key_len);
  *der = (struct atsk_certificate_der){.chain = NULL};
}
