/* Who of a service's endpoints gets a request: round robin, least request, random, hash; affinity, ejections, draining.  Any thread,
 * inside a read section or holding the set.  No lock, no allocation, no clock; bounded in the number of endpoints. */
#ifndef ATSK_BALANCE_H
#define ATSK_BALANCE_H

#include "base/atsk_base.h"
#include "blob/atsk_format.h"

#include <stdbool.h>

ATSK_BEGIN_DECLS

struct atsk_endpoint_set; /* endpoint_layout.h */

/* What a request asks of a pick.  All zero is legal: round robin, ejections not looked at. */
struct atsk_pick_wish {
  uint32_t algorithm;     /* enum atsk_balance; DEFAULT counts as ROUND_ROBIN */
  uint32_t load_percent;  /* of HASH: no endpoint gets more than this share of the mean load; 0: no bound, else > 100 */
  uint32_t tries;         /* choices wanted; 0, or more than ATSK_TRIES_MAX: as many as that */
  uint32_t panic_percent; /* more than this share of the eligible ejected: ejections do not count.  100: they always do */
  bool has_hash;          /* else HASH is ROUND_ROBIN: the header or cookie was not there */
  uint64_t hash;          /* atsk_balance_hash() of the bytes that decide */
  uint64_t affinity_tag;  /* atsk_tag_read() of the client's cookie; 0: none */
  uint64_t random;        /* 64 bits, the request's own */
  uint64_t now_ms;        /* any steady clock, the one of atsk_pick_failed(); never 0 */
};

/* Where a request may go.  Owns a hold on the set, and one in-flight count on the endpoint being tried (endpoints.h). */
struct atsk_pick {
  struct atsk_endpoint_set *set; /* NULL: nothing held */
  uint32_t n;                    /* choices, 1..ATSK_TRIES_MAX */
  uint32_t current;              /* 0..n-1: the choice that the in-flight count is on */
  /* Places in the set's endpoints, all different, best first: whom the algorithm chose, others that are eligible, then those ejected, then
   * those draining. */
  uint32_t choices[ATSK_TRIES_MAX];
  bool is_affine;  /* the first choice is the one of affinity_tag, draining or not */
  bool is_bounded; /* counted in the service's n_bounded */
};

/* Writes *pick but for `set` and `current`; counts nothing but a turn, and what is_bounded says.  False: nobody is eligible, and affinity
 * leads nowhere. */
bool atsk_balance_choose(struct atsk_endpoint_set *set, const struct atsk_pick_wish *wish, struct atsk_pick *pick);

/* A hash of what decides a HASH pick.  Without a key, and the same in every process: two proxies choose alike.  A client that picks its
 * own header can pick its endpoint, then; the bound on load limits what that does. */
uint64_t atsk_balance_hash(const char *bytes, size_t len);

/* --- the writer: once per set, before it is published ---------------------------------------------------------------------------- */

/* The shares of `n` weights (each >= 1), summed up, in their lowest terms, into ends[n]; no sum exceeds 2^31.  Returns the last, and in
 * *stride a number prime to it.  0: all weights are alike, and ends is not written. */
uint32_t atsk_balance_shares(const uint32_t *weights, uint32_t n, uint32_t *ends, uint32_t *stride);

ATSK_END_DECLS
#endif
