/* Counters: nothing is lost between threads, names are there. */
#include "controller/stats.h"
#include "tap.h"

#include <pthread.h>

#define N_THREADS 80 /* more than shards */
#define N_ADDS 20000

static void *
adder(void *unused)
{
  for (unsigned i = 0; i < N_ADDS; i++) {
    atsk_count((enum atsk_counter)(i % ATSK_N_COUNTERS));
  }
  return unused;
}

int
main(void)
{
  pthread_t threads[N_THREADS];
  for (unsigned i = 0; i < N_THREADS; i++) {
    REQUIRE(pthread_create(&threads[i], NULL, adder, NULL) == 0, "thread");
  }
  for (unsigned i = 0; i < N_THREADS; i++) {
    REQUIRE(pthread_join(threads[i], NULL) == 0, "join");
  }
  uint64_t sum = 0;
  for (enum atsk_counter c = 0; c < ATSK_N_COUNTERS; c++) {
    sum += atsk_counter_sum(c);
    REQUIRE(strncmp(atsk_counter_name(c), "atsk8s_", 7) == 0 && atsk_counter_label(c) != NULL, "counter %d has a name", (int)c);
  }
  CHECK(sum == (uint64_t)N_THREADS * N_ADDS, "no count is lost among %d threads", N_THREADS);
  return tap_end();
}
