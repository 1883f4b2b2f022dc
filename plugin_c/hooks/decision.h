/* What becomes of a request: an answer of ours, or an endpoint and how to treat it.  Order: health path, host, path, match, what it is
 * refused for, pick.  ATS's threads, from the remap hook, inside the caller's read section; nothing here answers or changes the request.
 * What a decision holds, it holds without the table. */
#ifndef ATSK_DECISION_H
#define ATSK_DECISION_H

#include <stdbool.h>

#include "hooks/admission.h"
#include "hooks/ats.h"
#include "base/atsk_base.h"
#include "policy/client_limits.h"
#include "controller/controller.h"
#include "endpoints/endpoints.h"
#include "hooks/incoming.h"
#include "hooks/log_fields.h"
#include "hooks/preference.h"
#include "table/publish.h"
#include "controller/stats.h"
#include "policy/treatment.h"

ATSK_BEGIN_DECLS

/* An answer of ours. */
struct atsk_answer {
  TSHttpStatus status; /* TS_HTTP_STATUS_NONE: none, forward; TS_HTTP_STATUS_OK without text: gRPC's */
  enum atsk_counter counter;
  const char *text; /* static */
};

/* All of it holds only with an answer of TS_HTTP_STATUS_NONE, but for retry_after_s. */
struct atsk_decision {
  struct atsk_answer answer;
  uint32_t retry_after_s; /* with 429 */
  bool is_safe;           /* GET, HEAD or OPTIONS */
  bool is_post_or_put;    /* whose length ATS insists on */
  struct atsk_body_said body;
  uint64_t now_ms;                        /* atsk_deadlines_now_ms() */
  const struct atsk_treatment *treatment; /* the options', or `own` */
  struct atsk_treatment own;
  struct atsk_pick pick;        /* held: the caller's */
  struct atsk_limits_hold hold; /* likewise */
  struct atsk_cookie *cookie;   /* affinity's, the caller's; NULL: none */
  struct atsk_log_fields log;   /* with --access-log-fields=on */
};

/* `table` NULL: there is none yet. */
void atsk_decide(TSHttpTxn txnp, TSRemapRequestInfo *rri, const struct atsk_table *table, const struct atsk_settings *settings,
                 struct atsk_incoming *in, struct atsk_decision *out);

ATSK_END_DECLS
#endif
