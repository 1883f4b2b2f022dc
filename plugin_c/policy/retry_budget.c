/* See retry_budget.h. */
#include "policy/retry_budget.h"

#include <stdatomic.h>

#define USED_BITS 32u /* of the word that holds the second and what was taken in it */

static _Atomic uint64_t second_and_used; /* second << USED_BITS | taken in it: one word, so that none is taken twice */
static _Atomic uint64_t n_before;        /* requests before that second */
static _Atomic uint64_t n_last;          /* requests of the second before it */

/* The first one of a new second: `second` and what was counted before it come into force.  Another thread may still work with the former
 * second's figures for a moment: its share is then that second's, which is as good. */
static void
second_begin(uint64_t former, uint64_t second, uint64_t n_requests)
{
  /* relaxed, all through: these are figures, nothing is read through them */
  const uint64_t before  = atomic_exchange_explicit(&n_before, n_requests, memory_order_relaxed);
  const uint64_t delta   = n_requests > before ? n_requests - before : 0;
  const uint64_t elapsed = second > former ? second - former : 1;
  atomic_store_explicit(&n_last, former == 0 ? 0 : delta / elapsed, memory_order_relaxed);
}

static uint64_t
allowance(const struct atsk_retry_budget_rules *rules, uint64_t n_requests)
{
  const uint64_t before = atomic_load_explicit(&n_before, memory_order_relaxed);
  const uint64_t now    = n_requests > before ? n_requests - before : 0;
  const uint64_t last   = atomic_load_explicit(&n_last, memory_order_relaxed);
  return rules->per_second + (now > last ? now : last) * rules->percent / 100u;
}

bool
atsk_retry_budget_take(const struct atsk_retry_budget_rules *rules, uint64_t n_requests, uint64_t now_ms)
{
  const uint64_t second = now_ms / 1000u + 1u; /* never 0, which is "no second yet" */
  uint64_t word         = atomic_load_explicit(&second_and_used, memory_order_relaxed);
  for (;;) {
    const uint64_t of = word >> USED_BITS;
    if (of < second) {
      if (!atomic_compare_exchange_weak_explicit(&second_and_used, &word, second << USED_BITS, memory_order_relaxed,
                                                 memory_order_relaxed)) {
        continue;
      }
      second_begin(of, second, n_requests);
      word = second << USED_BITS;
    }
    const uint64_t used = word & ((UINT64_C(1) << USED_BITS) - 1u);
    if (used >= allowance(rules, n_requests) || used >= UINT32_MAX) {
      return false;
    }
    if (atomic_compare_exchange_weak_explicit(&second_and_used, &word, word + 1u, memory_order_relaxed, memory_order_relaxed)) {
      return true;
    }
  }
}
