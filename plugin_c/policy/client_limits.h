/* Request rates and concurrency, by client and for all of them: token buckets and counts in tables of fixed size, so that clients cannot make
 * them grow.  Any thread, lock-free; static memory (some 1.3 MB, touched only as far as it is used).
 *
 * An entry is found by a keyed hash of its scope and client, so nobody can make others share his; it stays as long as a request holds it or
 * its bucket is not full again.  Where every entry that a client may have is taken by others the request passes, and is counted: a
 * limit protects, but what cannot be counted is not refused.  Scopes have a table of their own, which clients cannot fill. */
#ifndef ATSK_CLIENT_LIMITS_H
#define ATSK_CLIENT_LIMITS_H

#include <stdbool.h>

#include "base/atsk_base.h"
#include "blob/atsk_format.h"

ATSK_BEGIN_DECLS

struct atsk_client {
  uint8_t addr[16]; /* network order; IPv4 in the first 4 */
  uint8_t family;   /* enum atsk_endpoint_family; 0: unknown, which all such clients share */
};

enum atsk_limits_verdict {
  ATSK_LIMITS_ALLOWED            = 0,
  ATSK_LIMITS_CLIENT_RATE        = 1,
  ATSK_LIMITS_CLIENT_CONCURRENCY = 2,
  ATSK_LIMITS_TOTAL_RATE         = 3,
  ATSK_LIMITS_TOTAL_CONCURRENCY  = 4,
};

/* What an allowed request holds until it ends; all zero: nothing. */
struct atsk_limits_hold {
  uint32_t client; /* an entry's number, from 1 */
  uint32_t total;
};

/* What a request has to pass. */
struct atsk_limits_request {
  const struct atsk_policy_limits *limits; /* validated */
  struct atsk_span exempt;                 /* its networks: n_exempt * ATSK_EXEMPT_SIZE bytes */
  uint64_t scope;                          /* whose counts; the same number from commit to commit */
  struct atsk_client client;
  uint64_t now_ns; /* steady clock */
};

/* What came of it. */
struct atsk_limits_result {
  enum atsk_limits_verdict verdict;
  uint32_t retry_after_s; /* unless allowed: seconds until it would be, at least 1 */
  bool is_uncounted;      /* a table was full: it passed without being counted by it */
};

/* Draws the key of the tables' hash; once, before the first request.  ATSK_E_STATE: no randomness. */
enum atsk_status atsk_limits_init(void) ATSK_MUST_CHECK;

/* One request asks.  Nothing is taken unless it is allowed; then `hold` (all zero before) is to be given back when it ends. */
void atsk_limits_take(const struct atsk_limits_request *request, struct atsk_limits_hold *hold, struct atsk_limits_result *result);

/* Gives back what is held, and empties it; legal on an empty one.  Any thread. */
void atsk_limits_release(struct atsk_limits_hold *hold);

/* Is the client in one of n networks of ATSK_EXEMPT_SIZE bytes each? */
bool atsk_limits_is_exempt(struct atsk_span networks, const struct atsk_client *client);

ATSK_END_DECLS
#endif
