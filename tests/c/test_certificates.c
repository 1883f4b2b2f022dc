/* Certificates: what is refused and why, what a TLS connection is given, rotation, and a silent error queue. */
#include "table/certificates.h"
#include "certificates_made.h"
#include "base/retire.h"
#include "tap.h"

#include <openssl/err.h>
#include <openssl/pkcs12.h>

static struct atsk_certificate_parser *parser;
static struct made rsa, rsa_other, ec, weak, sha1, chained, edwards, agreement;

static void
refused(struct atsk_span chain, struct atsk_span key, enum atsk_status expected, const char *why)
{
  struct atsk_certificate_material *material = NULL;
  enum atsk_status st                        = atsk_certificate_material_create(parser, chain, key, &material);
  CHECK(st == expected && (st == ATSK_OK) == (material != NULL), "%s: %d (got %d)", why, (int)expected, (int)st);
  CHECK(ERR_peek_error() == 0, "%s: nothing left on the error queue", why);
  atsk_certificate_material_destroy(material);
}

static void
parsing(void)
{
  unsigned char bytes[16384];
  size_t len = (size_t)rsa.certificate_len;
  refused(made_chain(&rsa), made_key(&rsa), ATSK_OK, "RSA 2048");
  refused(made_chain(&ec), made_key(&ec), ATSK_OK, "ECDSA P-256");
  refused(made_chain(&edwards), made_key(&edwards), ATSK_OK, "Ed25519");
  refused(made_chain(&agreement), made_key(&agreement), ATSK_E_CERT, "X25519, which cannot sign");
  refused(made_chain(&rsa), made_key(&rsa_other), ATSK_E_KEY, "the key of another certificate");
  refused(made_chain(&rsa), made_key(&ec), ATSK_E_KEY, "a key of another type");
  refused(made_chain(&weak), made_key(&weak), ATSK_E_CERT, "RSA 1024");
  refused((struct atsk_span){NULL, 0}, made_key(&rsa), ATSK_E_CERT, "no certificate");
  refused(made_chain(&rsa), (struct atsk_span){NULL, 0}, ATSK_E_KEY, "no key");
  refused((struct atsk_span){rsa.certificate_der, len - 1}, made_key(&rsa), ATSK_E_CERT, "certificate cut off");
  refused(made_chain(&rsa), (struct atsk_span){rsa.key_der, (size_t)rsa.key_len - 1}, ATSK_E_KEY, "key cut off");
  refused(made_key(&rsa), made_key(&rsa), ATSK_E_CERT, "a key for a certificate");
  refused(made_chain(&rsa), made_chain(&rsa), ATSK_E_KEY, "a certificate for a key");
  memcpy(bytes, rsa.certificate_der, len);
  memcpy(bytes + len, "garbage", 7);
  refused((struct atsk_span){bytes, len + 7}, made_key(&rsa), ATSK_E_CERT, "garbage after the certificate");
  memcpy(bytes, rsa.key_der, (size_t)rsa.key_len);
  memcpy(bytes + rsa.key_len, "garbage", 7);
  refused(made_chain(&rsa), (struct atsk_span){bytes, (size_t)rsa.key_len + 7}, ATSK_E_KEY, "garbage after the key");
  memcpy(bytes, chained.certificate_der, (size_t)chained.certificate_len);
  memcpy(bytes + chained.certificate_len, rsa.certificate_der, len);
  refused((struct atsk_span){bytes, (size_t)chained.certificate_len + len}, made_key(&chained), ATSK_OK, "a chain of two");
  memcpy(bytes + chained.certificate_len, sha1.certificate_der, (size_t)sha1.certificate_len);
  refused((struct atsk_span){bytes, (size_t)(chained.certificate_len + sha1.certificate_len)}, made_key(&chained), ATSK_E_CERT,
          "a chain with a SHA-1 signature");
  PKCS8_PRIV_KEY_INFO *p8 = EVP_PKEY2PKCS8(rsa.key);
  unsigned char *der      = NULL;
  int n                   = i2d_PKCS8_PRIV_KEY_INFO(p8, &der);
  refused(made_chain(&rsa), (struct atsk_span){der, (size_t)n}, ATSK_OK, "a PKCS#8 key");
  OPENSSL_free(der);
  PKCS8_PRIV_KEY_INFO_free(p8);
  const struct made *const of[] = {&rsa, &ec, &edwards};
  for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) { /* the public half would belong to the certificate as well */
    der = NULL;
    n   = i2d_PUBKEY(of[i]->key, &der);
    refused(made_chain(of[i]), (struct atsk_span){der, (size_t)n}, ATSK_E_KEY, "a public key for the private one");
    OPENSSL_free(der);
    der = NULL;
    n   = i2d_PublicKey(of[i]->key, &der);
    if (n > 0) {
      refused(made_chain(of[i]), (struct atsk_span){der, (size_t)n}, ATSK_E_KEY, "a traditional public key for the private one");
    }
    OPENSSL_free(der);
    ERR_clear_error(); /* Ed25519 has no traditional form */
    p8            = EVP_PKEY2PKCS8(of[i]->key);
    X509_SIG *sig = PKCS8_encrypt(-1, EVP_aes_256_cbc(), "secret", 6, NULL, 0, 1000, p8);
    der           = NULL;
    n             = i2d_X509_SIG(sig, &der);
    refused(made_chain(of[i]), (struct atsk_span){der, (size_t)n}, ATSK_E_KEY, "an encrypted key");
    OPENSSL_free(der);
    X509_SIG_free(sig);
    PKCS8_PRIV_KEY_INFO_free(p8);
    refused(made_chain(of[i]), made_key(of[i]), ATSK_OK, "and a good one after it");
  }
  unsigned char *many = malloc(64 * (size_t)ec.certificate_len);
  for (int i = 0; i < 64; i++) {
    memcpy(many + i * ec.certificate_len, ec.certificate_der, (size_t)ec.certificate_len);
  }
  refused((struct atsk_span){many, 64 * (size_t)ec.certificate_len}, made_key(&ec), ATSK_E_CERT, "a chain of 64");
  free(many);
}

/* DER with one byte changed anywhere: refused or accepted, never a crash, never noise. */
static void
damaged(void)
{
  unsigned n_refused = 0;
  for (int i = 0; i < ec.certificate_len; i++) {
    unsigned char copy[4096];
    struct atsk_certificate_material *material = NULL;
    memcpy(copy, ec.certificate_der, (size_t)ec.certificate_len);
    copy[i] ^= (unsigned char)(1u << random_below(8));
    n_refused += atsk_certificate_material_create(parser, (struct atsk_span){copy, (size_t)ec.certificate_len}, made_key(&ec),
                                                  &material) != ATSK_OK;
    atsk_certificate_material_destroy(material);
  }
  CHECK(n_refused > 50 && ERR_peek_error() == 0, "%u of %d damaged certificates refused", n_refused, ec.certificate_len);
}

static void
set_material(struct atsk_certificate *certificate, const struct made *made)
{
  struct atsk_certificate_material *material = NULL;
  struct atsk_retired *retired               = NULL;
  if (made != NULL) {
    REQUIRE(atsk_certificate_material_create(parser, made_chain(made), made_key(made), &material) == ATSK_OK, "material");
  }
  atsk_certificate_swap(certificate, material, &retired);
  atsk_reclaim_all(retired);
}

static bool
has_certificate(SSL *ssl, const struct made *made)
{
  for (long op = SSL_CERT_SET_FIRST; SSL_set_current_cert(ssl, op) == 1; op = SSL_CERT_SET_NEXT) {
    if (X509_cmp(SSL_get_certificate(ssl), made->certificate) == 0) {
      return true;
    }
  }
  return false;
}

static void
applying(void)
{
  SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
  SSL_CTX_use_cert_and_key(ctx, rsa_other.certificate, rsa_other.key, NULL, 1); /* what ATS's own configuration might hold */
  struct atsk_tls_policy *policy = malloc(sizeof *policy + 3 * sizeof(struct atsk_certificate *));
  policy->n_certificates         = 3;
  for (uint64_t i = 0; i < 3; i++) {
    policy->certificates[i] = atsk_certificate_create(i + 40);
  }
  CHECK(atsk_certificate_id(policy->certificates[2]) == 42, "a certificate knows its id");
  SSL *ssl = SSL_new(ctx);
  CHECK(atsk_tls_policy_apply(policy, ssl) == ATSK_MISS && has_certificate(ssl, &rsa_other),
        "no material: a miss, nothing touched");
  SSL_free(ssl);

  set_material(policy->certificates[1], &ec);
  ssl = SSL_new(ctx);
  CHECK(atsk_tls_policy_apply(policy, ssl) == ATSK_OK && has_certificate(ssl, &ec), "ECDSA alone is given");
  CHECK(!has_certificate(ssl, &rsa_other), "and the context's RSA certificate of another host is not left");
  SSL_free(ssl);

  set_material(policy->certificates[0], &rsa);
  set_material(policy->certificates[2], &chained);
  ssl = SSL_new(ctx);
  CHECK(atsk_tls_policy_apply(policy, ssl) == ATSK_OK && has_certificate(ssl, &rsa) && has_certificate(ssl, &ec) &&
          !has_certificate(ssl, &chained),
        "an RSA and an ECDSA certificate are both given, of two RSA ones the first");
  set_material(policy->certificates[0], NULL);
  set_material(policy->certificates[1], NULL);
  CHECK(has_certificate(ssl, &rsa), "a connection keeps what it was given");
  SSL_free(ssl);
  CHECK(ERR_peek_error() == 0, "the error queue is empty");
  for (int i = 0; i < 3; i++) {
    atsk_certificate_destroy(policy->certificates[i]);
  }
  free(policy);
  SSL_CTX_free(ctx);
}

static void
without_memory(void)
{
  struct atsk_certificate_material *material = NULL;
  fail_allocation(1);
  CHECK(atsk_certificate_material_create(parser, made_chain(&ec), made_key(&ec), &material) == ATSK_E_NOMEM && material == NULL,
        "no memory");
  fail_allocation(1);
  CHECK(atsk_certificate_create(1) == NULL, "no memory for a certificate");
  fail_allocation(1);
  CHECK(atsk_certificate_parser_create() == NULL, "no memory for a parser");
  fail_allocation(0);
}

int
main(void)
{
  random_seed();
  rsa       = made_certificate("rsa.test", EVP_RSA_gen(2048), EVP_sha256(), NULL);
  rsa_other = made_certificate("other.test", EVP_RSA_gen(2048), EVP_sha256(), NULL);
  ec        = made_certificate("ec.test", EVP_EC_gen("P-256"), EVP_sha256(), NULL);
  weak      = made_certificate("weak.test", EVP_RSA_gen(1024), EVP_sha256(), NULL);
  chained   = made_certificate("chained.test", EVP_RSA_gen(2048), EVP_sha256(), &rsa);
  sha1      = made_certificate("sha1.test", EVP_RSA_gen(2048), EVP_sha1(), &rsa);
  edwards   = made_certificate("ed.test", EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), NULL, NULL);
  agreement = made_certificate("x.test", EVP_PKEY_Q_keygen(NULL, NULL, "X25519"), EVP_sha256(), &rsa);
  ERR_clear_error();
  parser = atsk_certificate_parser_create();
  CHECK(parser != NULL, "a parser");
  parsing();
  damaged();
  applying();
  without_memory();
  atsk_certificate_parser_destroy(parser);
  atsk_certificate_parser_destroy(NULL);
  struct made *all[] = {&rsa, &rsa_other, &ec, &weak, &chained, &sha1, &edwards, &agreement};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    made_free(all[i]);
  }
  return tap_end();
}
