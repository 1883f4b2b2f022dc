/* Passive health by itself: when an endpoint is ejected, for how long, what brings it back, and when too many are. */
#include "endpoints/endpoint_layout.h"
#include "endpoints/endpoints.h"
#include "endpoints/health.h"
#include "staging.h"
#include "tap.h"

#define N 10u

static const struct atsk_health_rules rules = {.max_failures = 3, .base_ms = 1000, .max_ms = 8000};

static struct atsk_service *
service_of(uint32_t n)
{
  struct atsk_endpoint_record records[N];
  struct atsk_endpoint_set *set;
  struct atsk_retired *retired = NULL;
  struct atsk_service *service = atsk_service_create(1);
  for (uint32_t i = 0; i < n; i++) {
    records[i] = endpoint_record(i, 80);
  }
  REQUIRE(atsk_endpoint_set_create(service, records_span(records, n), &set) == ATSK_OK, "set");
  atsk_service_swap(service, set, &retired);
  return service;
}

static struct atsk_endpoint_state *
state_of(const struct atsk_service *service, uint32_t i)
{
  return atsk_service_current(service)->endpoints[i].state;
}

/* How long the next ejection lasts, when it begins at `now`. */
static uint64_t
ejected_for(struct atsk_service *service, struct atsk_endpoint_state *state, uint64_t now)
{
  unsigned n = 0;
  while (!atsk_health_failed(service, state, &rules, now, random_next())) {
    REQUIRE(++n < 100, "never ejected");
  }
  return atomic_load(&state->ejected_until_ms) - now;
}

static void
rows_of_failures(void)
{
  struct atsk_service *service      = service_of(2);
  struct atsk_endpoint_state *state = state_of(service, 0);
  uint64_t now                      = 5000;
  CHECK(!atsk_health_failed(service, state, &rules, now, 1) && !atsk_health_failed(service, state, &rules, now, 1) &&
          !atsk_health_is_ejected(state, now),
        "two of three failures: nothing");
  CHECK(!atsk_health_succeeded(service, state), "a success ends a row, but no ejection");
  CHECK(!atsk_health_failed(service, state, &rules, now, 1) && !atsk_health_failed(service, state, &rules, now, 1),
        "two more, after a success: nothing");
  CHECK(atsk_health_failed(service, state, &rules, now, 1) && atsk_health_is_ejected(state, now), "the third in a row: ejected");
  CHECK(!atsk_health_failed(service, state, &rules, now, 1), "and only once");
  CHECK(atomic_load(&state->failures) == 6, "all failures are counted");
  CHECK(atsk_health_counts(service, atsk_service_current(service), 50, now), "one of two is left out");
  CHECK(!atsk_health_counts(service, atsk_service_current(service), 49, now), "unless that is too many");
  uint64_t until = atomic_load(&state->ejected_until_ms);
  CHECK(atsk_health_is_ejected(state, until - 1) && !atsk_health_is_ejected(state, until), "for its time");
  CHECK(!atsk_health_counts(service, atsk_service_current(service), 100, until), "then nobody is");
  CHECK(atsk_health_failed(service, state, &rules, until, 1), "its trial failed: ejected again by one failure");
  CHECK(atsk_health_succeeded(service, state) && !atsk_health_is_ejected(state, until), "one success restores");
  CHECK(!atsk_health_counts(service, atsk_service_current(service), 100, until), "at once");
  CHECK(!atsk_health_succeeded(service, state), "and only once");
  const struct atsk_health_rules off = {.max_failures = 0, .base_ms = 1000, .max_ms = 8000};
  for (unsigned i = 0; i < 1000; i++) {
    REQUIRE(!atsk_health_failed(service, state, &off, now, 1), "switched off");
  }
  atsk_service_destroy(service);
}

static void
times(void)
{
  bool is_good = true, differs = false;
  uint64_t last = 0;
  for (unsigned round = 0; round < 100; round++) {
    struct atsk_service *service      = service_of(2);
    struct atsk_endpoint_state *state = state_of(service, 0);
    uint64_t now                      = 1 + random_below(1u << 30);
    for (uint64_t expected = 1000; expected <= 32000; expected *= 2) {
      uint64_t mean = expected < 8000 ? expected : 8000;
      uint64_t time = ejected_for(service, state, now);
      is_good &= time >= mean * 3 / 4 && time <= mean * 5 / 4;
      differs |= last != 0 && mean == 8000 && time != last;
      last = mean == 8000 ? time : last;
      now += time;
    }
    now += 9001 + 1000; /* well for as long as the longest */
    uint64_t time = ejected_for(service, state, now);
    is_good &= time >= 750 && time <= 1250;
    atsk_service_destroy(service);
  }
  CHECK(is_good, "times double up to the longest, within a quarter, and begin anew after a quiet time");
  CHECK(differs, "and no two are alike");
}

static void
counts(void)
{
  struct atsk_service *service            = service_of(N);
  const struct atsk_endpoint_set *current = atsk_service_current(service);
  uint64_t now                            = 100000;
  CHECK(!atsk_health_counts(service, current, 100, now), "nobody ejected");
  for (uint32_t i = 0; i < N; i++) {
    (void)ejected_for(service, state_of(service, i), now);
    bool counts_at_50 = atsk_health_counts(service, current, 50, now);
    REQUIRE(counts_at_50 == (i + 1 <= 5), "%u of ten, at 50 %%", i + 1);
  }
  CHECK(atsk_health_counts(service, current, 100, now), "all of ten, at 100 %%: they count");
  CHECK(!atsk_health_counts(service, current, 99, now), "at 99 %% they do not");
  for (uint32_t i = 0; i < 6; i++) {
    CHECK(atsk_health_succeeded(service, state_of(service, i)), "restored");
  }
  CHECK(atsk_health_counts(service, current, 50, now), "four of ten: the count follows at once");
  CHECK(!atsk_health_counts(service, current, 100, now + 1250), "their time is over");
  /* Expiry says nothing to anybody: one that is still out when the others' time is over is noticed within 100 ms. */
  (void)ejected_for(service, state_of(service, 0), now + 700);
  CHECK(atsk_health_counts(service, current, 50, now + 1400), "one is out, longer than the others");
  CHECK(!atsk_health_counts(service, current, 9, now + 1400) && atsk_health_counts(service, current, 10, now + 1400), "one of ten");
  atsk_service_destroy(service);
}

static void
probes(void)
{
  struct atsk_service *service            = service_of(4);
  const struct atsk_endpoint_set *current = atsk_service_current(service);
  struct atsk_endpoint_state *state       = state_of(service, 1);
  const struct atsk_endpoint_record first = endpoint_record(1, 80);
  const uint64_t now                      = 70000;
  CHECK(atsk_service_probed(service, first.addr, 4, 80, now, 5000) == ATSK_OK && atsk_health_is_ejected(state, now + 4999) &&
          !atsk_health_is_ejected(state, now + 5000),
        "a failed check leaves an endpoint out for as long as it says");
  CHECK(atsk_health_counts(service, current, 25, now) && !atsk_health_counts(service, current, 24, now) &&
          atsk_service_ejected(service, now) == 1,
        "and is counted as an ejection");
  CHECK(!atsk_health_succeeded(service, state) && atsk_health_is_ejected(state, now), "a request that succeeds does not end it");
  (void)ejected_for(service, state, now);
  CHECK(atsk_service_probed(service, first.addr, 4, 80, now, 0) == ATSK_OK && atsk_health_is_ejected(state, now),
        "a check that succeeds does not end what attempts say");
  CHECK(atsk_health_succeeded(service, state) && !atsk_health_is_ejected(state, now) && atsk_service_ejected(service, now) == 0,
        "a request does");
  CHECK(atsk_service_probed(service, first.addr, 4, 81, now, 5000) == ATSK_MISS &&
          atsk_service_probed(service, first.addr, 6, 80, now, 5000) == ATSK_MISS,
        "a check of one that is not there");
  atsk_service_destroy(service);
}

static void
service_note(struct atsk_service *service, void *argument)
{
  *(uint64_t *)argument += atsk_service_id(service);
}

static void
writer_views(void)
{
  uint64_t version, sum = 0;
  REQUIRE(atsk_commit_begin() == ATSK_OK && stage_service(5, 0, 3) == ATSK_OK && stage_service(6, 0, 1) == ATSK_OK, "staged");
  atsk_writer_services(service_note, &sum);
  CHECK(sum == 0 && atsk_writer_is_committing() && atsk_writer_service(5) == NULL, "no view while a commit is open");
  REQUIRE(atsk_commit_publish(&version) == ATSK_OK, "published");
  atsk_writer_services(service_note, &sum);
  CHECK(sum == 11 && !atsk_writer_is_committing() && atsk_service_size(atsk_writer_service(5)) == 3,
        "services by id, and all of them");
  CHECK(atsk_writer_service(7) == NULL, "an id that nobody has");
  REQUIRE(atsk_commit_begin() == ATSK_OK && atsk_commit_service_drop(5) == ATSK_OK && atsk_commit_service_drop(6) == ATSK_OK &&
            atsk_commit_publish(&version) == ATSK_OK,
          "dropped");
  CHECK(atsk_writer_service(5) == NULL, "one that was dropped");
  atsk_reclaim_barrier();
}

int
main(void)
{
  random_seed();
  rows_of_failures();
  times();
  counts();
  probes();
  writer_views();
  return tap_end();
}
