/* A rule's policies: checked once as hostile input, then typed borrowed views.  Layout: atsk_format.h.  No TS API, no Python, no
 * threads, no globals. */
#ifndef ATSK_POLICIES_H
#define ATSK_POLICIES_H

#include "base/atsk_base.h"
#include "blob/atsk_format.h"

ATSK_BEGIN_DECLS

/* What a rule says beyond where its requests go, borrowed from its blob; NULL: nothing, the options' defaults hold. */
struct atsk_policies {
  const struct atsk_policy_balance *balance;
  const struct atsk_policy_affinity *affinity;
  const struct atsk_policy_retry *retry;
  const struct atsk_policy_timeouts *timeouts;
  const struct atsk_policy_limits *limits;
  const struct atsk_policy_body *body;
  const struct atsk_policy_snippet *snippet;
};

/* Checks policies[], the policy data and every rule's run of policies in a blob whose header and sections are in bounds
 * (vhost.c has seen to that): kinds known, sorted and not repeated in a run; records aligned, of their kind's size and inside the
 * policy data; strings in bounds and of the bytes that they may have; every number, enum and reserved field in its range.
 * ATSK_OK, or ATSK_E_LAYOUT, _TRUNCATED, _RANGE, _ORDER.  Linear in the blob: a policy's strings are bounded (atsk_format.h). */
enum atsk_status atsk_policies_validate(struct atsk_span blob) ATSK_MUST_CHECK;

/* The policies of a rule of a validated blob. */
void atsk_policies_view(struct atsk_span blob, const struct atsk_blob_rule *rule, struct atsk_policies *out);

ATSK_END_DECLS
#endif
