/* Who gets how much: every algorithm with and without weights, bounded load; what moves when an endpoint leaves.  Bounds are six standard
 * deviations wide, so that a seed in a hundred million fails by chance. */
#include "endpoints/balance.h"
#include "picks.h"

static void
shares(uint32_t algorithm, const char *name)
{
  static uint32_t seen[N_MAX];
  const uint32_t weights[] = {1, 2, 5};
  const uint32_t sizes[]   = {1, 2, 3, 10, 100};
  for (unsigned w = 0; w < 2; w++) {
    for (unsigned s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
      const uint32_t n = sizes[s], n_picks = 300 * n;
      struct atsk_service *service = service_of(n, weights, w == 0 ? 0 : 3);
      uint32_t total = 0, n_wrong = 0, n_followed = 0;
      memset(seen, 0, sizeof seen);
      for (uint32_t i = 0; i < n_picks; i++) {
        struct atsk_pick_wish wish = wish_of(algorithm);
        struct atsk_pick pick      = chosen(service, &wish);
        n_wrong += pick.n != (n < ATSK_TRIES_MAX ? n : ATSK_TRIES_MAX) || pick.current != 0 || pick.is_affine || pick.is_bounded;
        n_followed += n > 1 && number_of(&pick, 1) == (number_of(&pick, 0) + 1) % n;
        seen[number_of(&pick, 0)]++;
        atsk_pick_release(&pick);
      }
      for (uint32_t i = 0; i < n; i++) {
        total += w == 0 ? 1 : weights[i % 3];
      }
      for (uint32_t i = 0; i < n; i++) {
        n_wrong += !is_near(seen[i], n_picks, w == 0 ? 1 : weights[i % 3], total);
      }
      CHECK(n_wrong == 0, "%s: %u endpoints of %s weights have their shares", name, n, w == 0 ? "equal" : "different");
      if (n >= 10) {
        CHECK(n_followed < n_picks / 2, "%s: retries are spread, %u of %u went to the next", name, n_followed, n_picks);
      }
      atsk_service_destroy(service);
    }
  }
}

static void
turns(void)
{
  uint32_t seen[10];
  struct atsk_service *service = service_of(10, NULL, 0);
  bool is_good                 = true;
  tally(service, wish_of(ATSK_BALANCE_ROUND_ROBIN), 100, seen, 10);
  for (unsigned i = 0; i < 10; i++) {
    is_good &= seen[i] == 10;
  }
  CHECK(is_good, "round robin: 100 requests, 10 for each of 10");
  atsk_service_destroy(service);

  const uint32_t weights[] = {500, 100, 300};
  service                  = service_of(3, weights, 3);
  uint32_t of_three[3] = {0}, longest = 0, row = 0, last = 9;
  for (unsigned i = 0; i < 90; i++) {
    struct atsk_pick_wish wish = wish_of(ATSK_BALANCE_ROUND_ROBIN);
    struct atsk_pick pick      = chosen(service, &wish);
    uint32_t number            = number_of(&pick, 0);
    of_three[number]++;
    row     = number == last ? row + 1 : 1;
    longest = row > longest ? row : longest;
    last    = number;
    atsk_pick_release(&pick);
  }
  CHECK(of_three[0] == 50 && of_three[1] == 10 && of_three[2] == 30, "weights 5:1:3 exactly, in each cycle of 9 turns");
  CHECK(longest <= 3, "and smoothly: %u in a row at most", longest);
  atsk_service_destroy(service);
}

static void
share_sums(void)
{
  uint32_t ends[4], stride = 0;
  CHECK(atsk_balance_shares((const uint32_t[]){7, 7, 7}, 3, ends, &stride) == 0, "equal weights need no shares");
  CHECK(atsk_balance_shares((const uint32_t[]){100, 200}, 2, ends, &stride) == 3 && ends[0] == 1 && ends[1] == 3, "lowest terms");
  uint32_t total = atsk_balance_shares((const uint32_t[]){UINT32_MAX, UINT32_MAX, 1, UINT32_MAX - 1}, 4, ends, &stride);
  CHECK(total == ends[3] && total < 1u << 31 && ends[2] == ends[1] + 1 && ends[0] > 1u << 28, "huge weights keep their shares: %u",
        total);
  bool is_prime = true;
  for (unsigned i = 0; i < 2000; i++) {
    uint32_t weights[4] = {1 + random_below(9), 1 + random_below(99), 1 + random_below(9), 1 + random_below(9999)};
    uint32_t a = atsk_balance_shares(weights, 4, weights, &stride), b = stride; /* in place */
    while (a != 0 && b != 0) {
      uint32_t rest = a % b;
      a             = b;
      b             = rest;
    }
    is_prime &= a <= 1;
  }
  CHECK(is_prime, "strides are prime to their sums");
}

/* Many in flight: the loads that power of two choices leaves are far closer to each other than chance's. */
static void
least(void)
{
  enum { N = 100, PICKS = 10000 };
  static struct atsk_pick picks[PICKS];
  uint32_t most[2] = {0, 0};
  for (unsigned a = 0; a < 2; a++) {
    uint32_t load[N]             = {0};
    struct atsk_service *service = service_of(N, NULL, 0);
    for (unsigned i = 0; i < PICKS; i++) {
      struct atsk_pick_wish wish = wish_of(a == 0 ? ATSK_BALANCE_LEAST_REQUEST : ATSK_BALANCE_RANDOM);
      picks[i]                   = chosen(service, &wish);
      uint32_t now               = ++load[number_of(&picks[i], 0)];
      most[a]                    = now > most[a] ? now : most[a];
    }
    for (unsigned i = 0; i < PICKS; i++) {
      atsk_pick_release(&picks[i]);
    }
    atsk_service_destroy(service);
  }
  CHECK(most[0] <= 105 && most[1] > 110, "10,000 in flight at 100: at most %u with two choices, %u by chance", most[0], most[1]);

  const uint32_t weights[]     = {1, 9};
  struct atsk_service *service = service_of(2, weights, 2);
  uint32_t load[2]             = {0};
  for (unsigned i = 0; i < 1000; i++) {
    struct atsk_pick_wish wish = wish_of(ATSK_BALANCE_LEAST_REQUEST);
    picks[i]                   = chosen(service, &wish);
    load[number_of(&picks[i], 0)]++;
  }
  CHECK(load[0] >= 95 && load[0] <= 105, "and by weight: %u : %u of 1 : 9", load[0], load[1]);
  for (unsigned i = 0; i < 1000; i++) {
    atsk_pick_release(&picks[i]);
  }
  atsk_service_destroy(service);
}

/* One of `n` leaves, another weight changes: what was not its own stays where it was. */
static void
disruption(uint32_t n, const uint32_t *weights, uint32_t n_weights)
{
  enum { KEYS = 20000 };
  static struct plan plans[N_MAX];
  static uint32_t before[KEYS];
  struct atsk_service *service = service_of(n, weights, n_weights);
  for (uint32_t i = 0; i < KEYS; i++) {
    struct atsk_pick_wish wish = wish_of(ATSK_BALANCE_HASH);
    wish.hash                  = atsk_balance_hash((const char *)&i, sizeof i);
    struct atsk_pick pick      = chosen(service, &wish);
    before[i]                  = number_of(&pick, 0);
    atsk_pick_release(&pick);
  }
  for (uint32_t i = 0; i + 1 < n; i++) { /* the first leaves, which moves the place of all others */
    plans[i] = (struct plan){i + 1, n_weights == 0 ? 1 : weights[(i + 1) % n_weights], ATSK_ENDPOINT_READY};
  }
  put(service, plans, n - 1);
  uint32_t n_moved = 0, n_lost = 0, n_strange = 0, n_next[2] = {0, 0};
  for (uint32_t i = 0; i < KEYS; i++) {
    struct atsk_pick_wish wish = wish_of(ATSK_BALANCE_HASH);
    wish.hash                  = atsk_balance_hash((const char *)&i, sizeof i);
    struct atsk_pick pick      = chosen(service, &wish);
    n_lost += before[i] == 0;
    n_moved += before[i] != 0 && before[i] != number_of(&pick, 0);
    n_strange += number_of(&pick, 0) == 0;
    n_next[0] += before[i] == 0 && number_of(&pick, 0) == 1;
    n_next[1] += before[i] == 0;
    atsk_pick_release(&pick);
  }
  CHECK(n_moved == 0 && n_strange == 0 && n_lost > 0, "hash: one of %u leaves, %u of %u keys were its, %u others moved", n, n_lost,
        (unsigned)KEYS, n_moved);
  CHECK(n <= 3 || n_next[0] < n_next[1], "and they went to many, not all to its neighbour");
  atsk_service_destroy(service);
}

/* A hot key: without a bound all of it goes to one endpoint; with 125 % nobody has more than that over the mean, and it fills up those
 * that come first for the key. */
static void
bounded(void)
{
  enum { N = 20, PICKS = 2000 };
  static struct atsk_pick picks[PICKS];
  for (uint32_t percent = 0; percent <= 125; percent += 125) {
    uint32_t load[N] = {0}, n_worst = 0, n_used = 0;
    struct atsk_service *service = service_of(N, NULL, 0);
    for (uint32_t i = 0; i < PICKS; i++) {
      struct atsk_pick_wish wish = wish_of(ATSK_BALANCE_HASH);
      wish.load_percent          = percent;
      wish.hash                  = i % 2 == 0 ? 77 : wish.hash; /* half of all is one key's */
      picks[i]                   = chosen(service, &wish);
      REQUIRE(picks[i].is_bounded == (percent > 0), "bounded picks say so");
      load[number_of(&picks[i], 0)]++;
    }
    for (uint32_t i = 0; i < N; i++) {
      n_worst = load[i] > n_worst ? load[i] : n_worst;
      n_used += load[i] > 0;
    }
    if (percent == 0) {
      CHECK(n_worst > PICKS / 2, "no bound: the hot key's endpoint has %u of %u", n_worst, (unsigned)PICKS);
    } else {
      CHECK(n_worst <= PICKS / N * 125 / 100 && n_used == N, "125 %%: at most %u where the mean is %u", n_worst,
            (unsigned)(PICKS / N));
    }
    for (uint32_t i = 0; i < PICKS; i++) {
      atsk_pick_release(&picks[i]);
    }
    struct atsk_pick_wish wish = wish_of(ATSK_BALANCE_HASH);
    wish.hash                  = 77;
    wish.load_percent          = percent;
    struct atsk_pick first     = chosen(service, &wish);
    const uint32_t home        = number_of(&first, 0);
    atsk_pick_release(&first);
    first = chosen(service, &wish);
    CHECK(number_of(&first, 0) == home, "all given back: the key is at home again");
    atsk_pick_release(&first);
    atsk_service_destroy(service);
  }
  const uint32_t weights[]     = {1, 3};
  struct atsk_service *service = service_of(2, weights, 2);
  uint32_t load[2]             = {0};
  for (uint32_t i = 0; i < 400; i++) {
    struct atsk_pick_wish wish = wish_of(ATSK_BALANCE_HASH);
    wish.load_percent          = 101;
    wish.hash                  = 5;
    picks[i]                   = chosen(service, &wish);
    load[number_of(&picks[i], 0)]++;
  }
  CHECK(load[0] >= 96 && load[0] <= 104, "one key over weights 1 : 3, bounded: %u : %u", load[0], load[1]);
  for (uint32_t i = 0; i < 400; i++) {
    atsk_pick_release(&picks[i]);
  }
  atsk_service_destroy(service);
}

static void
wishes(void)
{
  struct atsk_service *service = service_of(6, NULL, 0);
  for (uint32_t tries = 0; tries <= ATSK_TRIES_MAX + 2; tries++) {
    bool is_good = true;
    for (unsigned i = 0; i < 400; i++) {
      struct atsk_pick_wish wish = wish_of(algorithms[i % 4]);
      wish.tries                 = tries;
      struct atsk_pick pick      = chosen(service, &wish);
      uint32_t most              = ATSK_TRIES_MAX < 6 ? ATSK_TRIES_MAX : 6;
      is_good &= pick.n == (tries == 0 || tries > most ? most : tries);
      atsk_pick_release(&pick);
    }
    CHECK(is_good, "%u tries wanted", tries);
  }
  struct atsk_pick_wish wish = wish_of(ATSK_BALANCE_HASH);
  uint32_t n_same            = 0;
  wish.has_hash              = false;
  for (unsigned i = 0; i < 6; i++) {
    struct atsk_pick pick = chosen(service, &wish);
    n_same += number_of(&pick, 0) == 0;
    atsk_pick_release(&pick);
  }
  CHECK(n_same == 1, "hash without anything to hash is round robin");
  atsk_service_destroy(service);
}

int
main(void)
{
  const uint32_t weights[] = {1, 4, 2};
  random_seed();
  share_sums();
  turns();
  for (unsigned a = 0; a < 4; a++) {
    shares(algorithms[a], names[a]);
  }
  least();
  disruption(3, NULL, 0);
  disruption(10, weights, 3);
  disruption(100, NULL, 0);
  disruption(1000, NULL, 0);
  bounded();
  wishes();
  return tap_end();
}
