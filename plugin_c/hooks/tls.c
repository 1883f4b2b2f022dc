/* See tls.h.  Two hooks: CLIENT_HELLO binds the session to the server name before OpenSSL looks at tickets, CERT gives the certificate.
 * Each re-enables once, on every path; nothing borrowed from the table outlives its read section (OpenSSL takes references). */
#include "hooks/tls.h"

#include "hooks/ats.h"
#include "table/certificates.h"
#include "table/match.h"
#include "table/request.h"
#include "controller/stats.h"

#include <netinet/in.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <string.h>

#define SNI_HEADER_LEN 5u /* list length [2], type [1], name length [2]: RFC 6066 section 3 */

static uint16_t
local_port(TSVConn vc)
{
  const struct sockaddr *local = TSNetVConnLocalAddrGet(vc);
  if (local == NULL) {
    return 0;
  }
  return local->sa_family == AF_INET6 ? ntohs(((const struct sockaddr_in6 *)local)->sin6_port)
                                      : ntohs(((const struct sockaddr_in *)local)->sin_port);
}

/* The server_name extension's host name, borrowed from the ClientHello; absent if there is none or it is malformed (OpenSSL ends the
 * handshake for that by itself, a moment later). */
static struct atsk_str
client_hello_sni(SSL *ssl)
{
  struct atsk_str none       = {NULL, 0};
  const unsigned char *bytes = NULL;
  size_t len                 = 0;
  if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &bytes, &len) != 1 || len < SNI_HEADER_LEN) {
    return none;
  }
  size_t list_len = (size_t)bytes[0] << 8 | bytes[1];
  size_t name_len = (size_t)bytes[3] << 8 | bytes[4];
  if (list_len != len - 2 || bytes[2] != TLSEXT_NAMETYPE_host_name || name_len > len - SNI_HEADER_LEN) {
    return none;
  }
  struct atsk_str name = {(const char *)(bytes + SNI_HEADER_LEN), name_len};
  return name;
}

/* The name as the table holds it; absent if none was sent or it is no host name: the default policy's then. */
static struct atsk_str
sni_normalise(struct atsk_str sni, struct atsk_host *host)
{
  struct atsk_str name = {NULL, 0};
  if (sni.len > 0 && atsk_host_normalise(sni, host) == ATSK_REQUEST_FINE) {
    name.ptr = host->bytes;
    name.len = host->len;
  }
  return name;
}

/* A ticket or session is only good for the context it was made in.  Without this one from a host without client certificates opens
 * one that demands them, and any host's ticket resumes with any other's certificate (seen on TLS 1.2 and 1.3). */
static void
session_bind(SSL *ssl)
{
  struct atsk_host host;
  unsigned char text[8 + ATSK_HOST_MAX] = "atsk8s-";
  unsigned char context[SHA256_DIGEST_LENGTH];
  struct atsk_str name = sni_normalise(client_hello_sni(ssl), &host);
  text[7]              = name.len > 0 ? 'n' : '-'; /* kind: by name, or without one */
  if (name.len > 0) {
    memcpy(text + 8, name.ptr, name.len);
  }
  (void)SHA256(text, 8 + name.len, context);
  (void)SSL_set_session_id_context(ssl, context, sizeof context); /* fails only for more than 32 bytes */
}

static void
certificate_give(SSL *ssl, uint16_t port)
{
  struct atsk_host host;
  struct atsk_str sni            = {NULL, 0};
  struct atsk_str none           = {NULL, 0};
  enum atsk_counter counter      = ATSK_COUNT_TLS_NONE;
  const char *server_name        = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  const struct atsk_table *table = atsk_read_begin();
  sni.ptr                        = server_name;
  sni.len                        = server_name != NULL ? strlen(server_name) : 0;
  if (table != NULL) {
    const struct atsk_tls_policy *fallback = atsk_match_sni(table, port, none);
    const struct atsk_tls_policy *policy   = atsk_match_sni(table, port, sni_normalise(sni, &host));
    enum atsk_status status                = policy != NULL ? atsk_tls_policy_apply(policy, ssl) : ATSK_MISS;
    counter                                = policy == fallback ? ATSK_COUNT_TLS_DEFAULT : ATSK_COUNT_TLS_MATCHED;
    if (status == ATSK_MISS && fallback != NULL && policy != fallback) { /* its Secrets are missing or broken */
      status  = atsk_tls_policy_apply(fallback, ssl);
      counter = ATSK_COUNT_TLS_DEFAULT;
    }
    if (status != ATSK_OK) { /* none given: ATS's own certificate, if ssl_multicert.config has one, else alert 40 */
      counter = status == ATSK_MISS ? ATSK_COUNT_TLS_NONE : ATSK_COUNT_TLS_REFUSED;
    }
  }
  atsk_read_end();
  atsk_count(counter);
}

static int
on_handshake(TSCont contp, TSEvent event, void *edata)
{
  TSVConn vc = (TSVConn)edata;
  SSL *ssl   = (SSL *)TSVConnSslConnectionGet(vc);
  (void)contp;
  if (ssl != NULL) {
    if (event == TS_EVENT_SSL_CLIENT_HELLO) {
      session_bind(ssl);
    } else if (event == TS_EVENT_SSL_CERT) {
      certificate_give(ssl, local_port(vc));
    }
  }
  TSVConnReenable(vc);
  return 0;
}

void
atsk_tls_install(void)
{
  TSCont handshake = TSContCreate(on_handshake, NULL); /* no mutex: handshakes must not wait for each other */
  TSHttpHookAdd(TS_SSL_CLIENT_HELLO_HOOK, handshake);
  TSHttpHookAdd(TS_SSL_CERT_HOOK, handshake);
}
