/* Services of numbered endpoints, and picks from them, for the tests of who is chosen. */
#ifndef ATSK_TESTS_PICKS_H
#define ATSK_TESTS_PICKS_H

#include "endpoints/endpoint_layout.h"
#include "endpoints/endpoints.h"
#include "staging.h"
#include "tap.h"

#define N_MAX 1000u

static const struct atsk_health_rules once = {.max_failures = 1, .base_ms = 1000, .max_ms = 60000};

struct plan { /* of one endpoint */
  uint32_t number, weight;
  uint8_t flags;
};

static inline void
put(struct atsk_service *service, const struct plan *plans, uint32_t n)
{
  static struct atsk_endpoint_record records[N_MAX];
  struct atsk_endpoint_set *set;
  struct atsk_retired *retired = NULL;
  for (uint32_t i = 0; i < n; i++) {
    records[i]        = endpoint_record(plans[i].number, 80);
    records[i].weight = plans[i].weight;
    records[i].flags  = plans[i].flags;
  }
  REQUIRE(atsk_endpoint_set_create(service, records_span(records, n), &set) == ATSK_OK, "set");
  atsk_service_swap(service, set, &retired);
  atsk_reclaim_all(retired);
}

/* Endpoints 0..n-1, ready, of these weights in turn. */
static inline struct atsk_service *
service_of(uint32_t n, const uint32_t *weights, uint32_t n_weights)
{
  static struct plan plans[N_MAX];
  struct atsk_service *service = atsk_service_create(1);
  for (uint32_t i = 0; i < n; i++) {
    plans[i] = (struct plan){i, n_weights == 0 ? 1 : weights[i % n_weights], ATSK_ENDPOINT_READY | ATSK_ENDPOINT_SERVING};
  }
  put(service, plans, n);
  return service;
}

static inline uint32_t
number_of(const struct atsk_pick *pick, uint32_t choice)
{
  struct atsk_endpoint_address address;
  atsk_pick_address(pick, choice, &address);
  return (uint32_t)address.addr[2] << 8 | address.addr[3];
}

static inline bool
is_distinct(const struct atsk_pick *pick)
{
  for (uint32_t i = 0; i < pick->n; i++) {
    for (uint32_t k = 0; k < i; k++) {
      if (pick->choices[i] == pick->choices[k]) {
        return false;
      }
    }
  }
  return true;
}

static inline struct atsk_pick_wish
wish_of(uint32_t algorithm)
{
  return (struct atsk_pick_wish){.algorithm     = algorithm,
                                 .panic_percent = 50,
                                 .has_hash      = algorithm == ATSK_BALANCE_HASH,
                                 .hash          = random_next(),
                                 .random        = random_next(),
                                 .now_ms        = 1000000};
}

static inline struct atsk_pick
chosen(struct atsk_service *service, const struct atsk_pick_wish *wish)
{
  struct atsk_pick pick = {0};
  REQUIRE(atsk_service_choose(service, wish, &pick) == ATSK_OK && is_distinct(&pick), "a pick");
  return pick;
}

/* Picks `n` times as `wish` says, by chance anew each time, and counts in seen[] who was the first choice. */
static inline void
tally(struct atsk_service *service, struct atsk_pick_wish wish, uint32_t n, uint32_t *seen, size_t n_seen)
{
  memset(seen, 0, n_seen * sizeof *seen);
  for (uint32_t i = 0; i < n; i++) {
    wish.hash             = random_next();
    wish.random           = random_next();
    struct atsk_pick pick = chosen(service, &wish);
    seen[number_of(&pick, 0)]++;
    atsk_pick_release(&pick);
  }
}

/* Of endpoint `number`: ejected for a second or so, from now on. */
static inline void
eject(struct atsk_service *service, uint32_t number, uint64_t now_ms)
{
  struct atsk_pick_wish wish = wish_of(ATSK_BALANCE_RANDOM);
  for (unsigned i = 0; i < 100000; i++) {
    wish.random           = random_next();
    struct atsk_pick pick = chosen(service, &wish);
    bool is_it            = number_of(&pick, 0) == number;
    if (is_it) {
      REQUIRE(atsk_pick_failed(&pick, &once, now_ms, random_next()), "ejected");
    }
    atsk_pick_release(&pick);
    if (is_it) {
      return;
    }
  }
  CHECK(false, "endpoint %u is never chosen", number);
}

/* Is `n_seen` of `n` tries what a chance of share/total gives? */
static inline bool
is_near(uint64_t n_seen, uint64_t n, uint64_t share, uint64_t total)
{
  double mean = (double)n * (double)share / (double)total, off = (double)n_seen - mean;
  return off * off <= 36 * mean * (1 - (double)share / (double)total) + 36;
}

static const uint32_t algorithms[] = {ATSK_BALANCE_ROUND_ROBIN, ATSK_BALANCE_LEAST_REQUEST, ATSK_BALANCE_RANDOM, ATSK_BALANCE_HASH};
static const char *const names[]   = {"round robin", "least request", "random", "hash"};

#endif
