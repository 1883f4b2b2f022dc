/* The retry budget: a share of the requests and a floor, a second at a time, exact between threads. */
#include "policy/retry_budget.h"
#include "tap.h"

#include <pthread.h>
#include <stdatomic.h>

#define N_THREADS 8
#define N_TRIES 20000

static const struct atsk_retry_budget_rules rules = {.percent = 20, .per_second = 3};

static uint32_t
taken(const struct atsk_retry_budget_rules *of, uint64_t n_requests, uint64_t now_ms, uint32_t n_tries)
{
  uint32_t n = 0;
  for (uint32_t i = 0; i < n_tries; i++) {
    n += atsk_retry_budget_take(of, n_requests, now_ms) ? 1 : 0;
  }
  return n;
}

static _Atomic uint32_t n_taken;

static void *
taker(void *unused)
{
  for (uint32_t i = 0; i < N_TRIES; i++) {
    if (atsk_retry_budget_take(&rules, 100000, 60500 + i % 400)) {
      atomic_fetch_add(&n_taken, 1);
    }
  }
  return unused;
}

int
main(void)
{
  CHECK(taken(&rules, 1000000, 1000, 100) == 3, "a start counts nothing that was before it: the floor alone");
  CHECK(taken(&rules, 1000000, 1999, 100) == 0, "nothing is left in that second");
  CHECK(taken(&rules, 1000000, 2000, 100) == 3, "the next second has its own");
  CHECK(taken(&rules, 1000100, 2500, 100) == 20, "requests of this second bring their share");
  CHECK(taken(&rules, 1000100, 3000, 100) == 3 + 20, "those of the last second count in the next");
  CHECK(taken(&rules, 1001100, 13000, 100) == 3 + 20, "1000 requests in ten seconds without a retry: 100 a second");
  CHECK(taken(&rules, 1001100, 14000, 100) == 3, "and none after that");
  CHECK(taken(&rules, 900, 14500, 100) == 0, "a counter that runs backwards brings nothing");
  CHECK(taken(&rules, 900, 12000, 100) == 0, "nor does a clock that does");

  const struct atsk_retry_budget_rules none = {.percent = 0, .per_second = 0};
  const struct atsk_retry_budget_rules all  = {.percent = 100, .per_second = 0};
  CHECK(taken(&none, 2000000, 20000, 100) == 0, "no share and no floor: no retries");
  CHECK(taken(&none, 2000000, 21000, 1) == 0 && taken(&all, 2000050, 21500, 100) == 50, "all of them");

  CHECK(taken(&rules, 99000, 60000, 0) == 0 && taken(&rules, 99000, 60000, 1) == 1, "another second, one taken");
  pthread_t threads[N_THREADS];
  for (unsigned i = 0; i < N_THREADS; i++) {
    REQUIRE(pthread_create(&threads[i], NULL, taker, NULL) == 0, "thread");
  }
  for (unsigned i = 0; i < N_THREADS; i++) {
    REQUIRE(pthread_join(threads[i], NULL) == 0, "join");
  }
  CHECK(n_taken + 1 == 3 + 200, "%d threads take no more and no less than there is: %u", N_THREADS, n_taken + 1);
  return tap_end();
}
