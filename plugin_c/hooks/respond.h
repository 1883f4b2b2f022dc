/* Answers that we give ourselves: short, plain, with a request id, without internals, never cached.  ATS's threads. */
#ifndef ATSK_RESPOND_H
#define ATSK_RESPOND_H

#include "hooks/ats.h"
#include "base/atsk_base.h"

ATSK_BEGIN_DECLS

#define ATSK_REQUEST_ID_LEN 16u /* hex digits */

/* Draws the process's secret that request ids are made with; once, before the first answer.  ATSK_E_STATE: no randomness. */
enum atsk_status atsk_respond_init(void) ATSK_MUST_CHECK;

/* A number for the transaction that clients cannot predict and other transactions do not share; also what weights draw from. */
uint64_t atsk_request_number(TSHttpTxn txnp);

/* From the remap hook: the transaction ends here with `status`, a line of text (static) and X-Request-Id.  ATS adds
 * Cache-Control: no-store, and closes the connection after a body that nobody read. */
void atsk_respond(TSHttpTxn txnp, TSHttpStatus status, const char *text);

/* From the remap hook, likewise: 429 with Retry-After. */
void atsk_respond_later(TSHttpTxn txnp, uint32_t retry_after_s, const char *text);

/* From the remap hook, likewise: gRPC's "Trailers-Only" answer, UNIMPLEMENTED with a message that says what to do (grpc.h). */
void atsk_respond_grpc(TSHttpTxn txnp);

/* From the send-response hook of a forwarded request: the answer that ATS made is replaced by `status` and a line of text (static). */
void atsk_respond_instead(TSHttpTxn txnp, TSHttpStatus status, const char *text);

/* From the send-response hook of a forwarded request: if ATS made up an error answer itself (no endpoint could be reached, or the
 * client's body did not come), its page, which names hosts and addresses, is replaced by a line of ours.  True if the endpoint is to
 * blame. */
bool atsk_respond_replace_error(TSHttpTxn txnp);

ATSK_END_DECLS
#endif
