/* TLS handshakes: the certificate by server name, and sessions that stay with the name they were made for.  With certificates.c the only
 * file that includes OpenSSL.  ATS's threads. */
#ifndef ATSK_TLS_H
#define ATSK_TLS_H

#include "base/atsk_base.h"

ATSK_BEGIN_DECLS

/* Adds the handshake hooks; once, from kubernetes_ssl.so's TSPluginInit. */
ATSK_API void atsk_tls_install(void);

ATSK_END_DECLS
#endif
