/*
 * Nanoseconds per pick of an endpoint, given back at once, by every algorithm, at 1 to 1,000 endpoints; microseconds to build a set of so
 * many, and its bytes.  Prints JSON lines, one figure each; `build.py bench lookup` runs it.
 *
 * Usage: bench_pick [--quick]
 */
#include "../tests/c/staging.h"
#include "endpoints/affinity.h"
#include "endpoints/endpoints.h"
#include "base/retire.h"

#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#define BATCH 32u
#define N_MAX 1000u

static const struct {
  const char *name;
  uint32_t algorithm, load_percent;
  bool has_ejected, is_weighted, has_affinity;
} kinds[] = {
  {.name = "round robin", .algorithm = ATSK_BALANCE_ROUND_ROBIN},
  {.name = "round robin, weighted", .algorithm = ATSK_BALANCE_ROUND_ROBIN, .is_weighted = true},
  {.name = "round robin, one ejected", .algorithm = ATSK_BALANCE_ROUND_ROBIN, .has_ejected = true},
  {.name = "least request", .algorithm = ATSK_BALANCE_LEAST_REQUEST},
  {.name = "random", .algorithm = ATSK_BALANCE_RANDOM},
  {.name = "hash", .algorithm = ATSK_BALANCE_HASH},
  {.name = "hash, bounded load", .algorithm = ATSK_BALANCE_HASH, .load_percent = 125},
  {.name = "hash, weighted", .algorithm = ATSK_BALANCE_HASH, .is_weighted = true},
  {.name = "affinity", .algorithm = ATSK_BALANCE_ROUND_ROBIN, .has_affinity = true},
};

static uint64_t
now_ns(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t
next_random(uint64_t *state)
{
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * UINT64_C(2685821657736338717);
}

static int
compare_u64(const void *a, const void *b)
{
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static void
expect(bool is_so, const char *what)
{
  if (!is_so) {
    fprintf(stderr, "bench_pick: %s\n", what);
    exit(3);
  }
}

/* A service of `n` endpoints, whose set is built `n_times`; their median is reported. */
static struct atsk_service *
service_build(uint32_t n, bool is_weighted, unsigned n_times, bool is_reported)
{
  static struct atsk_endpoint_record records[N_MAX];
  uint64_t *times              = malloc(n_times * sizeof *times);
  struct atsk_service *service = atsk_service_create(1);
  size_t bytes                 = 0;
  for (uint32_t i = 0; i < n; i++) {
    records[i]        = endpoint_record(i, 80);
    records[i].weight = is_weighted ? 1 + i % 5 : 1;
  }
  for (unsigned k = 0; k < n_times; k++) {
    struct atsk_endpoint_set *set;
    struct atsk_retired *retired = NULL;
    size_t before                = mallinfo2().uordblks;
    uint64_t start               = now_ns();
    expect(atsk_endpoint_set_create(service, records_span(records, n), &set) == ATSK_OK, "a set was refused");
    times[k] = now_ns() - start;
    bytes    = k == 0 ? mallinfo2().uordblks - before : bytes;
    atsk_service_swap(service, set, &retired);
    atsk_reclaim_all(retired);
  }
  qsort(times, n_times, sizeof *times, compare_u64);
  if (is_reported) {
    printf("{\"figure\": \"endpoint set built\", \"endpoints\": %u, \"median_us\": %.2f}\n", n, (double)times[n_times / 2] / 1e3);
    printf("{\"figure\": \"endpoint set and states\", \"endpoints\": %u, \"bytes\": %zu}\n", n, bytes);
  }
  free(times);
  return service;
}

static void
measure(uint32_t n, unsigned k, unsigned n_batches)
{
  const struct atsk_health_rules rules = {.max_failures = 1, .base_ms = 1000000, .max_ms = 1000000};
  struct atsk_service *service         = service_build(n, kinds[k].is_weighted, 1, false);
  struct atsk_pick_wish wish           = {.algorithm     = kinds[k].algorithm,
                                          .load_percent  = kinds[k].load_percent,
                                          .panic_percent = 50,
                                          .has_hash      = kinds[k].algorithm == ATSK_BALANCE_HASH,
                                          .now_ms        = 1};
  struct atsk_pick pick;
  uint64_t random = 4711, *batches = malloc(n_batches * sizeof *batches), tags[BATCH];
  for (unsigned i = 0; i < BATCH; i++) { /* of endpoints all over the set */
    wish.algorithm = ATSK_BALANCE_RANDOM;
    wish.random    = next_random(&random);
    expect(atsk_service_choose(service, &wish, &pick) == ATSK_OK, "no pick");
    tags[i] = atsk_pick_tag(&pick, 0);
    if (i == 0 && kinds[k].has_ejected) {
      expect(atsk_pick_failed(&pick, &rules, 1, 1), "not ejected");
    }
    atsk_pick_release(&pick);
  }
  wish.algorithm = kinds[k].algorithm;
  for (unsigned b = 0; b < n_batches; b++) {
    uint64_t start = now_ns();
    for (unsigned i = 0; i < BATCH; i++) {
      wish.random       = next_random(&random);
      wish.hash         = wish.random ^ random;
      wish.affinity_tag = kinds[k].has_affinity ? tags[i] : 0;
      if (atsk_service_choose(service, &wish, &pick) != ATSK_OK) {
        expect(false, "no pick");
      }
      atsk_pick_release(&pick);
    }
    batches[b] = now_ns() - start;
  }
  qsort(batches, n_batches, sizeof *batches, compare_u64);
  printf("{\"figure\": \"pick, %s\", \"endpoints\": %u, \"median_ns\": %.1f}\n", kinds[k].name, n,
         (double)batches[n_batches / 2] / BATCH);
  fflush(stdout);
  free(batches);
  atsk_service_destroy(service);
}

int
main(int argc, char **argv)
{
  const bool is_quick    = argc > 1 && strcmp(argv[1], "--quick") == 0;
  const uint32_t sizes[] = {1, 3, 10, 100, 1000};
  for (unsigned s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
    atsk_service_destroy(service_build(sizes[s], false, is_quick ? 20 : 200, true));
    for (unsigned k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
      measure(sizes[s], k, is_quick ? 200 : 3000);
    }
  }
  return 0;
}
