/* See balance.h.  "Eligible k" is the k-th of the endpoints for new requests; its place is where it stands in the set (endpoint_layout.h).
 *
 * Consistent hashing is by rendezvous (highest random weight, Thaler and Ravishankar): every eligible endpoint's score is a hash of it and
 * of the request, the highest wins.  Nothing is built when endpoints change, nothing is stored but 8 bytes an endpoint, exactly the
 * share of an endpoint that leaves moves, and the next scores are the choices that follow.  docs/adr/0008 has the figures of the others. */
#include "endpoints/balance.h"

#include "endpoints/endpoint_layout.h"
#include "endpoints/health.h"
#include "base/siphash.h"

#include <string.h>

#define DRAWS_MAX 16u /* of endpoints, until one is not ejected; where no more than half are, 1 in 65,536 picks finds none */
#define WALK_MAX 64u  /* endpoints looked at for the choices that follow the first */
#define RANKS 2u      /* scores that HASH keeps: a retry goes to where the requests of an endpoint that leaves will go */

struct draft {
  struct atsk_endpoint_set *set;
  const struct atsk_pick_wish *wish;
  struct atsk_pick *pick;
  uint32_t n_wanted;
  bool has_ejected; /* some are to be left out */
  uint64_t random;  /* what is left of it */
};

/* splitmix64 (Steele, Lea and Flood): one 64-bit number after another from the request's. */
static uint64_t
random_next(struct draft *d)
{
  uint64_t z = d->random += UINT64_C(0x9E3779B97F4A7C15);
  z          = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
  z          = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
  return z ^ z >> 31;
}

/* 0..n-1, from the high half of 64 random bits. */
static uint32_t
random_below(uint64_t random, uint32_t n)
{
  return (uint32_t)(((random >> 32) * n) >> 32);
}

static const struct atsk_endpoint_state *
state_at(const struct draft *d, uint32_t place)
{
  return d->set->endpoints[place].state;
}

static uint32_t
in_flight(const struct draft *d, uint32_t place)
{
  /* relaxed: a figure; it orders nothing */
  return atomic_load_explicit(&d->set->endpoints[place].state->in_flight, memory_order_relaxed);
}

static bool
is_well(const struct draft *d, uint32_t place)
{
  return !d->has_ejected || !atsk_health_is_ejected(state_at(d, place), d->wish->now_ms);
}

static bool
is_listed(const struct draft *d, uint32_t place)
{
  for (uint32_t i = 0; i < d->pick->n; i++) {
    if (d->pick->choices[i] == place) {
      return true;
    }
  }
  return false;
}

static void
list(struct draft *d, uint32_t place)
{
  d->pick->choices[d->pick->n++] = place;
}

/* --- shares ------------------------------------------------------------------------------------------------------------------- */

static uint32_t
common_divisor(uint32_t a, uint32_t b)
{
  while (b != 0) {
    uint32_t rest = a % b;
    a             = b;
    b             = rest;
  }
  return a;
}

uint32_t
atsk_balance_shares(const uint32_t *weights, uint32_t n, uint32_t *ends, uint32_t *stride)
{
  uint64_t sum     = 0;
  uint32_t divisor = 0;
  bool is_alike    = true;
  for (uint32_t i = 0; i < n; i++) {
    sum += weights[i];
    divisor = common_divisor(weights[i], divisor);
    is_alike &= weights[i] == weights[0];
  }
  *stride = 1;
  if (is_alike) {
    return 0;
  }
  sum /= divisor;
  const uint64_t sum_max = UINT64_C(1) << 30; /* and at most 1 more an endpoint: below 2^31, as sets are of far less than 2^30 */
  uint32_t end           = 0;
  for (uint32_t i = 0; i < n; i++) {
    uint64_t share = weights[i] / divisor;
    if (sum > sum_max) {
      share = share * sum_max / sum; /* share < 2^32, sum_max 2^30: fits */
    }
    end += share > 0 ? (uint32_t)share : 1;
    ends[i] = end;
  }
  /* Some 0.618 of the whole: turns that follow each other lie far apart, as the golden ratio's multiples do, and so the turns of a heavy
   * endpoint are spread; prime to the whole: `end` turns hit every share once. */
  *stride = (uint32_t)((uint64_t)end * 618 / 1000) | 1;
  while (common_divisor(*stride, end) != 1) {
    ++*stride;
  }
  return end;
}

/* The eligible endpoint whose share `at` (below total_weight) lies in. */
static uint32_t
share_find(const struct atsk_endpoint_set *set, uint32_t at)
{
  const uint32_t *ends = atsk_set_ends(set);
  uint32_t low = 0, n = set->n_eligible;
  while (n > 1) {
    uint32_t half = n / 2;
    bool is_right = ends[low + half - 1] <= at;
    low += is_right ? half : 0;
    n = is_right ? n - half : half;
  }
  return low;
}

static uint32_t
weight_of(const struct draft *d, uint32_t place)
{
  return d->set->total_weight == 0 ? 1 : d->set->endpoints[place].weight;
}

/* --- one endpoint, by turn or by chance ------------------------------------------------------------------------------------------- */

static uint32_t
turn_take(struct draft *d)
{
  /* relaxed: only even use matters. */
  uint32_t turn = atomic_fetch_add_explicit(&d->set->turn, 1, memory_order_relaxed);
  if (d->set->total_weight == 0) {
    return atsk_set_place(d->set, turn % d->set->n_eligible);
  }
  uint64_t at = (uint64_t)(turn % d->set->total_weight) * d->set->stride % d->set->total_weight;
  return atsk_set_place(d->set, share_find(d->set, (uint32_t)at));
}

static uint32_t
chance_take(struct draft *d)
{
  uint64_t random = random_next(d);
  if (d->set->total_weight == 0) {
    return atsk_set_place(d->set, random_below(random, d->set->n_eligible));
  }
  return atsk_set_place(d->set, share_find(d->set, random_below(random, d->set->total_weight)));
}

/* Takes until one is well and not listed; or else none is listed.  Not the one beside an ejected one: that would have its load twice. */
static bool
draw(struct draft *d, uint32_t (*take)(struct draft *), uint32_t *place)
{
  const uint32_t n_draws = d->has_ejected || d->pick->n > 0 ? DRAWS_MAX : 1;
  for (uint32_t i = 0; i < n_draws; i++) {
    *place = take(d);
    if (is_well(d, *place) && !is_listed(d, *place)) {
      return true;
    }
  }
  return false;
}

static void
one_choose(struct draft *d, uint32_t (*take)(struct draft *))
{
  uint32_t place;
  if (draw(d, take, &place)) {
    list(d, place);
  }
}

/* Power of two choices (Mitzenmacher): of two, drawn by weight, the one with fewer requests in flight for its weight; the first, if they
 * are even.  Nobody scans the set, and nobody herds to the one that looked idle a moment ago. */
static void
least_choose(struct draft *d)
{
  uint32_t *first = &d->pick->choices[0];
  uint32_t other;
  one_choose(d, chance_take);
  if (d->pick->n == 0 || d->set->n_eligible < 2 || !draw(d, chance_take, &other)) {
    return;
  }
  if ((uint64_t)in_flight(d, other) * weight_of(d, *first) < (uint64_t)in_flight(d, *first) * weight_of(d, other)) {
    const uint32_t loser = *first;
    *first               = other;
    other                = loser;
  }
  if (d->pick->n < d->n_wanted) {
    list(d, other);
  }
}

/* --- hash ------------------------------------------------------------------------------------------------------------------------- */

static const struct atsk_siphash_key public_key = {UINT64_C(0x6b7374612e656c62), UINT64_C(0x65636e616c61622e)};

uint64_t
atsk_balance_hash(const char *bytes, size_t len)
{
  return atsk_siphash(&public_key, bytes, len);
}

/* Both halves of one wide product, as wyhash mixes (Wang Yi), of the request's and the endpoint's hash, which are each well mixed. */
static inline uint64_t
score_of(uint64_t request, uint64_t endpoint)
{
  const unsigned __int128 product = (unsigned __int128)(request ^ endpoint) * UINT64_C(0x9E3779B97F4A7C15);
  return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* ln of a number in (0, 1], by its series in (m - 1) / (m + 1), which converges fast for a mantissa m below 2; some 1e-6 of the exact. */
static double
log_of(uint64_t score)
{
  const int shift = __builtin_clzll(score | 1);
  const double m  = (double)((score | 1) << shift) * 0x1p-63; /* [1, 2) */
  const double z = (m - 1) / (m + 1), q = z * z;
  const double ln_m = 2 * z * (1 + q * (1.0 / 3 + q * (1.0 / 5 + q * (1.0 / 7 + q * (1.0 / 9)))));
  return ln_m - (double)(shift + 1) * 0.69314718055994531;
}

/* The score of a weighted endpoint: u^(1/w) for u in (0, 1] has the share w of being the highest; its logarithm is enough.  As bits that
 * compare like numbers: a negative double's bits grow with its size. */
static uint64_t
weighted(uint64_t score, uint32_t weight)
{
  const double value = log_of(score) / (double)weight;
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return ~bits;
}

struct ranks {
  uint32_t n;
  uint64_t scores[RANKS];
  uint32_t eligible[RANKS];
};

/* Keeps the highest scores, sorted. */
static void
rank(struct ranks *ranks, uint64_t score, uint32_t k)
{
  uint32_t at = ranks->n < RANKS ? ranks->n++ : RANKS - 1;
  for (; at > 0 && ranks->scores[at - 1] < score; at--) {
    ranks->scores[at]   = ranks->scores[at - 1];
    ranks->eligible[at] = ranks->eligible[at - 1];
  }
  ranks->scores[at]   = score;
  ranks->eligible[at] = k;
}

/* Has eligible `k` room below its bound?  Its share of what is in flight by bounded picks, this one included, times the percentage, rounded
 * up (Mirrokni, Thorup and Zadimoghaddam: consistent hashing with bounded loads). */
static bool
has_room(const struct draft *d, uint32_t k, uint64_t n_bounded)
{
  const struct atsk_endpoint_set *set = d->set;
  const uint32_t *ends                = atsk_set_ends(set);
  const bool is_alike                 = set->total_weight == 0;
  const uint64_t share                = is_alike ? 1 : ends[k] - (k == 0 ? 0 : ends[k - 1]);
  const uint64_t total                = is_alike ? set->n_eligible : set->total_weight;
  /* In 1024ths, so that a mean below 1 is one.  n_bounded < 2^32 and share <= total, so nothing here exceeds 2^54. */
  const uint64_t mean = (n_bounded * 1024 + total - 1) / total;
  return (uint64_t)in_flight(d, atsk_set_place(set, k)) * 1024 * 100 < mean * share * d->wish->load_percent;
}

/* The highest scores of endpoints that are well and, unless n_bounded is 0, have room.  States are looked at only for scores that count. */
static void
ranks_fill(const struct draft *d, uint64_t n_bounded, struct ranks *ranks)
{
  const struct atsk_endpoint_set *set = d->set;
  const uint64_t *hashes              = atsk_set_hashes(set);
  const uint64_t hash                 = d->wish->hash;
  const uint32_t n                    = set->n_eligible;
  const bool is_alike                 = set->total_weight == 0;
  uint64_t least                      = 0; /* what a score must reach, once there are enough */
  ranks->n                            = 0;
  for (uint32_t k = 0; k < n; k++) {
    uint64_t score = score_of(hash, hashes[k]);
    if (!is_alike) {
      score = weighted(score, set->endpoints[atsk_set_place(set, k)].weight);
    }
    if (score >= least && is_well(d, atsk_set_place(set, k)) && (n_bounded == 0 || has_room(d, k, n_bounded))) {
      rank(ranks, score, k);
      least = ranks->n == RANKS ? ranks->scores[RANKS - 1] : 0;
    }
  }
}

static void
hash_choose(struct draft *d)
{
  struct ranks ranks = {.n = 0};
  if (d->wish->load_percent > 0) {
    /* relaxed: a figure for the next picks; it orders nothing */
    uint64_t n_bounded  = (uint64_t)atomic_fetch_add_explicit(&d->set->service->n_bounded, 1, memory_order_relaxed) + 1;
    d->pick->is_bounded = true;
    ranks_fill(d, n_bounded, &ranks);
  }
  if (ranks.n == 0) { /* no bound; or requests that are not bounded fill all endpoints beyond it: then its own */
    ranks_fill(d, 0, &ranks);
  }
  for (uint32_t i = 0; i < ranks.n && d->pick->n < d->n_wanted; i++) {
    list(d, atsk_set_place(d->set, ranks.eligible[i]));
  }
}

/* --- the choices that follow ------------------------------------------------------------------------------------------------------- */

/* Lists others of the places that `at` gives, n of them, going round from one by chance: the requests of one that fails are spread over
 * all, where those beside it would have them all. */
static void
others_list(struct draft *d, uint32_t first, uint32_t n, bool is_ejected_too)
{
  const uint32_t n_steps = n < WALK_MAX ? n : WALK_MAX;
  if (n == 0 || d->pick->n >= d->n_wanted) {
    return;
  }
  uint32_t k = n == 1 ? 0 : random_below(random_next(d), n);
  for (uint32_t i = 0; i < n_steps && d->pick->n < d->n_wanted; i++) {
    const uint32_t place = atsk_set_place(d->set, first + k);
    if (!is_listed(d, place) && (is_ejected_too || is_well(d, place))) {
      list(d, place);
    }
    k = k + 1 == n ? 0 : k + 1;
  }
}

/* The endpoint of a tag.  A scan of 8 bytes an endpoint, in a row: 1,000 of them take as long as two cache misses would. */
static bool
tag_find(const struct atsk_endpoint_set *set, uint64_t tag, uint32_t *place)
{
  const uint64_t *tags = atsk_set_tags(set);
  for (uint32_t i = 0; i < set->n; i++) {
    if (tags[i] == tag) {
      *place = i;
      return true;
    }
  }
  return false;
}

static void
algorithm_choose(struct draft *d)
{
  switch (d->wish->algorithm) {
  case ATSK_BALANCE_LEAST_REQUEST:
    least_choose(d);
    break;
  case ATSK_BALANCE_RANDOM:
    one_choose(d, chance_take);
    break;
  case ATSK_BALANCE_HASH:
    if (d->wish->has_hash) {
      hash_choose(d);
    } else {
      one_choose(d, turn_take);
    }
    break;
  default:
    one_choose(d, turn_take);
    break;
  }
}

/* What most requests are: round robin, nobody draining, ejected or weighted.  The same as what follows it, with less to look at. */
static void
plain_choose(struct atsk_endpoint_set *set, const struct atsk_pick_wish *wish, uint32_t n_wanted, struct atsk_pick *pick)
{
  /* relaxed: only even use matters. */
  const uint32_t first = atomic_fetch_add_explicit(&set->turn, 1, memory_order_relaxed) % set->n;
  pick->n              = n_wanted;
  pick->choices[0]     = first;
  if (n_wanted > 1) {
    uint32_t place = random_below(wish->random * UINT64_C(0x9E3779B97F4A7C15), set->n); /* its low bits may be all that differ */
    for (uint32_t i = 1; i < n_wanted; i++) {
      place            = place == first ? place + 1 : place;
      place            = place < set->n ? place : 0; /* not first: there are two at least */
      pick->choices[i] = place;
      place            = place + 1 < set->n ? place + 1 : 0;
    }
  }
}

bool
atsk_balance_choose(struct atsk_endpoint_set *set, const struct atsk_pick_wish *wish, struct atsk_pick *pick)
{
  struct draft d = {.set = set, .wish = wish, .pick = pick, .random = wish->random};
  uint32_t affine;
  d.n_wanted       = wish->tries == 0 || wish->tries > ATSK_TRIES_MAX ? ATSK_TRIES_MAX : wish->tries;
  d.n_wanted       = d.n_wanted < set->n ? d.n_wanted : set->n;
  d.has_ejected    = atsk_health_counts(set->service, set, wish->panic_percent, wish->now_ms);
  pick->n          = 0;
  pick->is_affine  = false;
  pick->is_bounded = false;
  if (wish->algorithm <= ATSK_BALANCE_ROUND_ROBIN && wish->affinity_tag == 0 && !d.has_ejected && set->n_eligible == set->n &&
      set->total_weight == 0) {
    plain_choose(set, wish, d.n_wanted, pick);
    return true;
  }
  if (wish->affinity_tag != 0 && tag_find(set, wish->affinity_tag, &affine) && is_well(&d, affine)) {
    list(&d, affine);
    pick->is_affine = true;
  } else if (set->n_eligible == 0) {
    return false;
  } else {
    algorithm_choose(&d);
  }
  others_list(&d, 0, set->n_eligible, false);
  if (d.has_ejected) {
    others_list(&d, 0, set->n_eligible, true);
  }
  others_list(&d, set->n_eligible, set->n - set->n_eligible, true);
  return pick->n > 0;
}
