/* What the access log says of a request and Traffic Server does not know: with --access-log-fields=on, as fields of the client's request
 * that its log formats can show (deploy/ats/logging.yaml):
 *
 *   @Atsk8s-Ingress   "namespace/name" of the object whose rule was followed
 *   @Atsk8s-Service   "name:port" of the Service, in the same namespace, that the endpoint is of
 *   X-Request-Id      the client's own if it is a trusted proxy's and well-formed, else one made here; the pod gets it, too
 *
 * Fields whose names start with "@" are never sent anywhere.  Clients can send them all the same (9.2.9), so those of ours are removed
 * before anything else.  ATS's threads. */
#ifndef ATSK_LOG_FIELDS_H
#define ATSK_LOG_FIELDS_H

#include "hooks/ats.h"
#include "base/atsk_base.h"
#include "controller/controller.h"

ATSK_BEGIN_DECLS

#define ATSK_LOG_INGRESS_MAX 320u /* namespace 63, "/", name 253 */
#define ATSK_LOG_SERVICE_MAX 72u  /* name 63, ":", port 5 */

/* Lives as long as the transaction: the table may change before the log's line is written. */
struct atsk_log_fields {
  uint16_t ingress_len; /* 0: none */
  uint16_t service_len; /* 0: unknown */
  char ingress[ATSK_LOG_INGRESS_MAX];
  char service[ATSK_LOG_SERVICE_MAX];
};

/* Copies what is known once a rule was found: inside the read section.  What is too long is left out. */
void atsk_log_fields_take(struct atsk_log_fields *out, struct atsk_str ingress, struct atsk_str service);

/* In the remap hook, whatever becomes of the request: removes our fields that the client sent, and gives the request its id.  Changes the
 * header: what is borrowed from it is void afterwards. */
void atsk_log_fields_begin(TSHttpTxn txnp, TSMBuffer bufp, TSMLoc hdr, const struct atsk_settings *settings);

/* In TS_HTTP_TXN_CLOSE_HOOK, which comes before the log's line (HttpSM::kill_this). */
void atsk_log_fields_end(TSHttpTxn txnp, const struct atsk_log_fields *fields);

ATSK_END_DECLS
#endif
