/* Certificates and keys made on the spot, as the DER that commits take. */
#ifndef ATSK_TESTS_CERTIFICATES_MADE_H
#define ATSK_TESTS_CERTIFICATES_MADE_H

#include "base/atsk_base.h"

#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdlib.h>

struct made {
  EVP_PKEY *key;
  X509 *certificate;
  unsigned char *certificate_der, *key_der;
  int certificate_len, key_len;
};

/* A certificate of `name`, signed with `digest` by `issuer` (NULL: by itself). */
static inline struct made
made_certificate(const char *name, EVP_PKEY *key, const EVP_MD *digest, const struct made *issuer)
{
  struct made made = {.key = key, .certificate = X509_new()};
  X509_NAME *subject;
  ASN1_INTEGER_set(X509_get_serialNumber(made.certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(made.certificate), -3600);
  X509_gmtime_adj(X509_getm_notAfter(made.certificate), 86400);
  X509_set_pubkey(made.certificate, key);
  subject = X509_get_subject_name(made.certificate);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
  X509_set_issuer_name(made.certificate, issuer == NULL ? subject : X509_get_subject_name(issuer->certificate));
  X509_sign(made.certificate, issuer == NULL ? key : issuer->key, digest);
  made.certificate_len = i2d_X509(made.certificate, &made.certificate_der);
  made.key_len         = i2d_PrivateKey(key, &made.key_der);
  return made;
}

static inline void
made_free(struct made *made)
{
  X509_free(made->certificate);
  EVP_PKEY_free(made->key);
  OPENSSL_free(made->certificate_der);
  OPENSSL_free(made->key_der);
}

static inline struct atsk_span
made_chain(const struct made *made)
{
  return (struct atsk_span){made->certificate_der, (size_t)made->certificate_len};
}

static inline struct atsk_span
made_key(const struct made *made)
{
  return (struct atsk_span){made->key_der, (size_t)made->key_len};
}

#endif
