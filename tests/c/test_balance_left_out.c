/* Who gets nothing, and who last: draining and ejected endpoints under every algorithm, and affinity to them.  Bounds as in test_balance.c. */
#include "endpoints/balance.h"
#include "picks.h"

static void
draining(void)
{
  const uint8_t ready = ATSK_ENDPOINT_READY | ATSK_ENDPOINT_SERVING, going = ATSK_ENDPOINT_SERVING | ATSK_ENDPOINT_TERMINATING;
  const struct plan mixed[]    = {{0, 1, going}, {1, 1, ready}, {2, 1, going}, {3, 1, ready}, {4, 1, going}};
  const struct plan all[]      = {{0, 1, going}, {1, 2, going}, {2, 1, ATSK_ENDPOINT_TERMINATING}};
  struct atsk_service *service = atsk_service_create(1);
  for (unsigned a = 0; a < 4; a++) {
    uint32_t seen[5] = {0};
    bool is_last     = true;
    put(service, mixed, 5);
    for (unsigned i = 0; i < 400; i++) {
      struct atsk_pick_wish wish = wish_of(algorithms[a]);
      struct atsk_pick pick      = chosen(service, &wish);
      seen[number_of(&pick, 0)]++;
      is_last &= pick.n >= 3 && number_of(&pick, 0) % 2 == 1 && number_of(&pick, 1) % 2 == 1 && number_of(&pick, 2) % 2 == 0;
      atsk_pick_release(&pick);
    }
    CHECK(is_last && is_near(seen[1], 400, 1, 2), "%s: new requests to the ready, draining ones last: %u %u", names[a], seen[1],
          seen[3]);
    put(service, all, 3);
    tally(service, wish_of(algorithms[a]), 600, seen, 5);
    CHECK(seen[2] == 0 && is_near(seen[0], 600, 1, 3), "%s: none is ready: those that still serve, by weight: %u %u", names[a],
          seen[0], seen[1]);
  }
  const struct plan dead[]   = {{0, 1, ATSK_ENDPOINT_TERMINATING}};
  struct atsk_pick_wish wish = wish_of(ATSK_BALANCE_ROUND_ROBIN);
  struct atsk_pick pick;
  put(service, dead, 1);
  CHECK(atsk_service_choose(service, &wish, &pick) == ATSK_MISS, "none serves: a miss");
  struct atsk_endpoints_view view;
  struct atsk_endpoint_record record;
  struct atsk_endpoint_health health;
  put(service, mixed, 5);
  atsk_service_view(service, &view);
  atsk_endpoints_record(&view, 2, &record);
  atsk_endpoints_health(&view, 2, &health);
  CHECK(record.flags == going && !health.is_eligible, "a view tells an endpoint's conditions");
  atsk_endpoints_health(&view, 3, &health);
  CHECK(health.is_eligible && health.in_flight == 0, "and who is eligible");
  atsk_service_destroy(service);
}

static void
affinity(void)
{
  const uint8_t ready = ATSK_ENDPOINT_READY, going = ATSK_ENDPOINT_SERVING | ATSK_ENDPOINT_TERMINATING;
  const struct plan before[]   = {{0, 1, ready}, {1, 1, ready}, {2, 1, ready}};
  const struct plan during[]   = {{0, 1, ready}, {1, 1, going}, {2, 1, ready}};
  const struct plan after[]    = {{0, 1, ready}, {2, 1, ready}};
  const struct plan last[]     = {{1, 1, ATSK_ENDPOINT_TERMINATING}};
  struct atsk_service *service = atsk_service_create(1);
  put(service, before, 3);
  struct atsk_pick_wish wish = wish_of(ATSK_BALANCE_ROUND_ROBIN);
  uint64_t tag               = 0;
  while (tag == 0) {
    struct atsk_pick pick = chosen(service, &wish);
    tag                   = number_of(&pick, 0) == 1 ? atsk_pick_tag(&pick, 0) : 0;
    atsk_pick_release(&pick);
  }
  const struct {
    const struct plan *plans;
    uint32_t n;
    bool is_kept;
    const char *what;
  } steps[] = {
    {before, 3, true, "ready"}, {during, 3, true, "draining"}, {after, 2, false, "gone"}, {last, 1, true, "the last, and ending"}};
  for (unsigned s = 0; s < 4; s++) {
    put(service, steps[s].plans, steps[s].n);
    bool is_good = true;
    for (unsigned i = 0; i < 100; i++) {
      wish                  = wish_of(algorithms[i % 4]);
      wish.affinity_tag     = tag;
      struct atsk_pick pick = chosen(service, &wish);
      is_good &= pick.is_affine == steps[s].is_kept && (number_of(&pick, 0) == 1) == steps[s].is_kept;
      is_good &= pick.n == (steps[s].n < ATSK_TRIES_MAX ? steps[s].n : ATSK_TRIES_MAX);
      atsk_pick_release(&pick);
    }
    CHECK(is_good, "affinity to one that is %s: %s", steps[s].what, steps[s].is_kept ? "kept" : "a new choice");
  }
  put(service, before, 3);
  eject(service, 1, 1000000);
  wish                  = wish_of(ATSK_BALANCE_ROUND_ROBIN);
  wish.affinity_tag     = tag;
  struct atsk_pick pick = chosen(service, &wish);
  CHECK(!pick.is_affine && number_of(&pick, 0) != 1 && number_of(&pick, 2) == 1,
        "to one that is ejected: a new choice, and it last");
  atsk_pick_release(&pick);
  wish.affinity_tag ^= 1;
  pick = chosen(service, &wish);
  CHECK(!pick.is_affine, "a tag that nobody has: a new choice");
  atsk_pick_release(&pick);
  atsk_service_destroy(service);
}

static void
ejections(void)
{
  for (unsigned a = 0; a < 4; a++) {
    struct atsk_service *service = service_of(10, NULL, 0);
    uint32_t seen[10]            = {0};
    bool is_last                 = true;
    eject(service, 3, 1000000);
    eject(service, 4, 1000000);
    for (unsigned i = 0; i < 4000; i++) {
      struct atsk_pick_wish wish = wish_of(algorithms[a]);
      struct atsk_pick pick      = chosen(service, &wish);
      seen[number_of(&pick, 0)]++;
      for (uint32_t c = 0; c < pick.n; c++) {
        is_last &= number_of(&pick, c) != 3 && number_of(&pick, c) != 4;
      }
      atsk_pick_release(&pick);
    }
    uint32_t n_wrong = 0;
    for (unsigned i = 0; i < 10; i++) {
      n_wrong += i == 3 || i == 4 ? seen[i] != 0 : !is_near(seen[i], 4000, 1, 8);
    }
    CHECK(is_last && n_wrong == 0, "%s: two of ten ejected, the others have even shares: %u after them", names[a], seen[5]);
    for (uint32_t i = 5; i < 8; i++) {
      eject(service, i, 1000000);
    }
    struct atsk_pick_wish wish = wish_of(algorithms[a]);
    tally(service, wish, 1000, seen, 10);
    CHECK(seen[3] + seen[4] + seen[5] + seen[6] + seen[7] == 0, "%s: half of them ejected: still left out", names[a]);
    eject(service, 8, 1000000);
    tally(service, wish, 4000, seen, 10);
    n_wrong = 0;
    for (unsigned i = 0; i < 10; i++) {
      n_wrong += !is_near(seen[i], 4000, 1, 10);
    }
    CHECK(n_wrong == 0, "%s: six of ten: panic, and all are used", names[a]);
    wish.panic_percent = 100;
    tally(service, wish, 1000, seen, 10);
    CHECK(seen[3] + seen[4] + seen[5] + seen[6] + seen[7] + seen[8] == 0, "%s: no panic at 100 %%: four carry all", names[a]);
    wish.panic_percent = 50;
    wish.now_ms        = 1003000; /* later, all are tried again */
    tally(service, wish, 4000, seen, 10);
    n_wrong = 0;
    for (unsigned i = 0; i < 10; i++) {
      n_wrong += !is_near(seen[i], 4000, 1, 10);
    }
    CHECK(n_wrong == 0, "%s: their time is over: all are used", names[a]);
    atsk_service_destroy(service);
  }
}

int
main(void)
{
  random_seed();
  draining();
  affinity();
  ejections();
  return tap_end();
}
