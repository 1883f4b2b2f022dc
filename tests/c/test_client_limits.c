/* Limits: buckets, concurrency, clients apart from each other, tables that never grow, and what is taken is given back. */
#include "policy/client_limits.h"
#include "tap.h"

#include <pthread.h>
#include <stdatomic.h>

#define SECOND UINT64_C(1000000000)
#define START (UINT64_C(1000000) * SECOND)

static struct atsk_client
ipv4(uint8_t a, uint8_t b, uint8_t c, uint8_t d)
{
  struct atsk_client client = {.addr = {a, b, c, d}, .family = ATSK_FAMILY_IPV4};
  return client;
}

static struct atsk_client
ipv6(uint8_t network, uint8_t host)
{
  struct atsk_client client = {.addr   = {0x20, 1, 0x0d, 0xb8, 0, 0, 0, network, 9, 9, 9, 9, 9, 9, 9, host},
                               .family = ATSK_FAMILY_IPV6};
  return client;
}

static struct atsk_limits_result
ask(const struct atsk_policy_limits *limits, uint64_t scope, struct atsk_client client, uint64_t now_ns,
    struct atsk_limits_hold *hold)
{
  struct atsk_limits_request request = {.limits = limits, .exempt = {NULL, 0}, .scope = scope, .client = client, .now_ns = now_ns};
  struct atsk_limits_result result;
  atsk_limits_take(&request, hold, &result);
  return result;
}

/* As ask(), giving back at once: how many of n pass. */
static uint32_t
passes(const struct atsk_policy_limits *limits, uint64_t scope, struct atsk_client client, uint64_t now_ns, uint32_t n)
{
  uint32_t passed = 0;
  for (uint32_t i = 0; i < n; i++) {
    struct atsk_limits_hold hold = {0, 0};
    passed += ask(limits, scope, client, now_ns, &hold).verdict == ATSK_LIMITS_ALLOWED ? 1 : 0;
    atsk_limits_release(&hold);
  }
  return passed;
}

static void
rates(void)
{
  const struct atsk_policy_limits limits = {.client_rate_milli = 2000, .client_burst = 5}; /* 2 a second */
  struct atsk_limits_hold hold           = {0, 0};
  CHECK(passes(&limits, 1, ipv4(10, 0, 0, 1), START, 20) == 5, "a burst passes");
  const struct atsk_limits_result refused = ask(&limits, 1, ipv4(10, 0, 0, 1), START, &hold);
  CHECK(refused.verdict == ATSK_LIMITS_CLIENT_RATE && refused.retry_after_s == 1, "then none, for a second");
  CHECK(hold.client == 0 && hold.total == 0, "who is refused holds nothing");
  CHECK(passes(&limits, 1, ipv4(10, 0, 0, 2), START, 20) == 5, "another client has its own");
  CHECK(passes(&limits, 2, ipv4(10, 0, 0, 1), START, 20) == 5, "and so has the same one in another scope");
  CHECK(passes(&limits, 1, ipv4(10, 0, 0, 1), START + SECOND, 20) == 2, "a second later two more");
  CHECK(passes(&limits, 1, ipv4(10, 0, 0, 1), START + 100 * SECOND, 20) == 5, "after a rest a burst again, and no more");

  CHECK(passes(&limits, 3, ipv6(1, 1), START, 20) == 5 && passes(&limits, 3, ipv6(1, 2), START, 20) == 0, "a /64 is one client");
  CHECK(passes(&limits, 3, ipv6(2, 1), START, 20) == 5, "the next /64 is another");
  struct atsk_client unknown = {.family = 0};
  CHECK(passes(&limits, 3, unknown, START, 20) == 5, "clients without an address share one");

  const struct atsk_policy_limits slow = {.client_rate_milli = 17, .client_burst = 1}; /* one a minute */
  CHECK(passes(&slow, 4, ipv4(10, 0, 0, 1), START, 3) == 1, "one a minute");
  CHECK(ask(&slow, 4, ipv4(10, 0, 0, 1), START, &hold).retry_after_s == 59, "Retry-After says when");
  const struct atsk_policy_limits extreme = {.client_rate_milli = 1, .client_burst = UINT32_MAX};
  CHECK(passes(&extreme, 5, ipv4(10, 0, 0, 1), START, 1000) == 1000, "the longest interval with the largest burst");
  const struct atsk_policy_limits fast = {.client_rate_milli = UINT32_MAX, .client_burst = 1};
  CHECK(passes(&fast, 6, ipv4(10, 0, 0, 1), START, 3) == 1 && passes(&fast, 6, ipv4(10, 0, 0, 1), START + 1000, 3) == 1,
        "the shortest interval");
}

static void
concurrency(void)
{
  const struct atsk_policy_limits limits = {.client_concurrency = 2};
  struct atsk_limits_hold holds[3]       = {{0, 0}, {0, 0}, {0, 0}};
  CHECK(ask(&limits, 10, ipv4(1, 1, 1, 1), START, &holds[0]).verdict == ATSK_LIMITS_ALLOWED &&
          ask(&limits, 10, ipv4(1, 1, 1, 1), START, &holds[1]).verdict == ATSK_LIMITS_ALLOWED,
        "two at a time");
  const struct atsk_limits_result third = ask(&limits, 10, ipv4(1, 1, 1, 1), START, &holds[2]);
  CHECK(third.verdict == ATSK_LIMITS_CLIENT_CONCURRENCY && third.retry_after_s == 1, "the third is refused");
  CHECK(ask(&limits, 10, ipv4(1, 1, 1, 2), START, &holds[2]).verdict == ATSK_LIMITS_ALLOWED, "another client's is not");
  atsk_limits_release(&holds[2]);
  atsk_limits_release(&holds[0]);
  atsk_limits_release(&holds[0]);
  CHECK(ask(&limits, 10, ipv4(1, 1, 1, 1), START, &holds[0]).verdict == ATSK_LIMITS_ALLOWED, "one ended: one more may, not two");
  CHECK(ask(&limits, 10, ipv4(1, 1, 1, 1), START, &holds[2]).verdict == ATSK_LIMITS_CLIENT_CONCURRENCY, "two again");
  atsk_limits_release(&holds[0]);
  atsk_limits_release(&holds[1]);
}

static void
totals(void)
{
  const struct atsk_policy_limits limits = {
    .client_rate_milli = 1000, .client_burst = 1, .total_rate_milli = 1000, .total_burst = 3, .total_concurrency = 2};
  struct atsk_limits_hold hold = {0, 0};
  uint32_t passed              = 0;
  for (uint8_t i = 0; i < 10; i++) {
    passed += passes(&limits, 20, ipv4(2, 2, 2, i), START, 1);
  }
  CHECK(passed == 3, "all clients together");
  CHECK(ask(&limits, 20, ipv4(2, 2, 2, 9), START, &hold).verdict == ATSK_LIMITS_TOTAL_RATE, "the verdict says which limit");
  CHECK(passes(&limits, 20, ipv4(2, 2, 2, 9), START + SECOND, 2) == 1, "refused for others' sake: the client kept its token");

  const struct atsk_policy_limits two = {.total_concurrency = 2};
  struct atsk_limits_hold holds[2]    = {{0, 0}, {0, 0}};
  REQUIRE(ask(&two, 21, ipv4(3, 3, 3, 1), START, &holds[0]).verdict == ATSK_LIMITS_ALLOWED, "first");
  REQUIRE(ask(&two, 21, ipv4(3, 3, 3, 2), START, &holds[1]).verdict == ATSK_LIMITS_ALLOWED, "second");
  CHECK(ask(&two, 21, ipv4(3, 3, 3, 3), START, &hold).verdict == ATSK_LIMITS_TOTAL_CONCURRENCY, "concurrency of all");
  atsk_limits_release(&holds[0]);
  CHECK(passes(&two, 21, ipv4(3, 3, 3, 3), START, 2) == 2, "given back");
  atsk_limits_release(&holds[1]);
}

static void
exemptions(void)
{
  static const uint8_t networks[3 * ATSK_EXEMPT_SIZE] = {
    10,   1, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 15, /* 10.0.0.0/15, nearly */
    0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 32, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 32};
  const struct atsk_span all = {networks, sizeof networks};
  struct atsk_client in[]    = {ipv4(10, 0, 9, 9), ipv4(10, 1, 255, 1), ipv4(192, 0, 2, 7), ipv6(5, 5)};
  struct atsk_client out[]   = {ipv4(10, 2, 0, 0), ipv4(192, 0, 2, 6), ipv4(0x20, 1, 0x0d, 0xb8)};
  for (size_t i = 0; i < sizeof in / sizeof in[0]; i++) {
    CHECK(atsk_limits_is_exempt(all, &in[i]), "exempt %zu", i);
  }
  for (size_t i = 0; i < sizeof out / sizeof out[0]; i++) {
    CHECK(!atsk_limits_is_exempt(all, &out[i]), "not exempt %zu", i);
  }
  const struct atsk_span nothing = {NULL, 0};
  CHECK(!atsk_limits_is_exempt(nothing, &in[0]), "no networks");
  static const uint8_t everybody[ATSK_EXEMPT_SIZE] = {[16] = 4, [17] = 0};
  CHECK(atsk_limits_is_exempt((struct atsk_span){everybody, sizeof everybody}, &out[0]), "0.0.0.0/0");
}

static void
full(void)
{
  const struct atsk_policy_limits limits = {.client_rate_milli = 1, .client_burst = 1, .total_rate_milli = 1000, .total_burst = 1};
  uint32_t n_uncounted = 0, n_refused = 0;
  for (uint32_t i = 0; i < 200000; i++) { /* thrice as many as there are entries, each busy for 1000 s */
    struct atsk_limits_hold hold                 = {0, 0};
    const struct atsk_policy_limits clients_only = {.client_rate_milli = 1, .client_burst = 1};
    struct atsk_client client                    = ipv4(4, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i);
    const struct atsk_limits_result result       = ask(&clients_only, 30, client, START, &hold);
    n_uncounted += result.is_uncounted ? 1 : 0;
    n_refused += result.verdict != ATSK_LIMITS_ALLOWED ? 1 : 0;
  }
  CHECK(n_refused == 0 && n_uncounted > 200000 - 65536 - 1 && n_uncounted < 200000 - 50000,
        "a full table lets pass, and says so: %u", n_uncounted);
  CHECK(passes(&limits, 31, ipv4(5, 5, 5, 5), START, 10) == 1, "totals count even then");
  CHECK(passes(&limits, 30, ipv4(6, 6, 6, 6), START + 2000 * SECOND, 10) == 1, "and entries come back with time");
}

/* --- threads -------------------------------------------------------------------------------------------------------------------- */

#define N_THREADS 8
#define N_ROUNDS 20000

static const struct atsk_policy_limits shared = {.client_concurrency = 3, .total_concurrency = 5};
static _Atomic int n_in[3], n_in_all;
static _Atomic uint32_t n_over;

static void *
visitor(void *argument)
{
  const unsigned thread = (unsigned)(uintptr_t)argument;
  for (unsigned i = 0; i < N_ROUNDS; i++) {
    const unsigned who           = (thread + i) % 3;
    struct atsk_limits_hold hold = {0, 0};
    if (ask(&shared, 40, ipv4(7, 7, 7, (uint8_t)who), START, &hold).verdict == ATSK_LIMITS_ALLOWED) {
      const int mine = atomic_fetch_add(&n_in[who], 1) + 1;
      const int all  = atomic_fetch_add(&n_in_all, 1) + 1;
      if (mine > 3 || all > 5) {
        atomic_fetch_add(&n_over, 1);
      }
      atomic_fetch_sub(&n_in_all, 1);
      atomic_fetch_sub(&n_in[who], 1);
      atsk_limits_release(&hold);
    }
  }
  return NULL;
}

static void
threads_share(void)
{
  pthread_t threads[N_THREADS];
  struct atsk_limits_hold first[4] = {{0, 0}, {0, 0}, {0, 0}, {0, 0}};
  for (uint8_t who = 0; who < 3; who++) { /* entries that exist: the first requests of all do not race for them */
    REQUIRE(ask(&shared, 40, ipv4(7, 7, 7, who), START, &first[who]).verdict == ATSK_LIMITS_ALLOWED, "there");
  }
  for (uint8_t who = 0; who < 3; who++) {
    atsk_limits_release(&first[who]);
  }
  for (uintptr_t i = 0; i < N_THREADS; i++) {
    REQUIRE(pthread_create(&threads[i], NULL, visitor, (void *)i) == 0, "thread");
  }
  for (unsigned i = 0; i < N_THREADS; i++) {
    REQUIRE(pthread_join(threads[i], NULL) == 0, "join");
  }
  CHECK(n_over == 0, "no more than allowed were inside at any time, %d threads", N_THREADS);
  uint32_t n = 0;
  for (unsigned i = 0; i < 4; i++) {
    n += ask(&shared, 40, ipv4(7, 7, 7, 1), START, &first[i]).verdict == ATSK_LIMITS_ALLOWED ? 1 : 0;
  }
  CHECK(n == 3, "and everything was given back");
}

/* All come at once, for an owner that has no entry yet. */
static pthread_barrier_t barrier;
static _Atomic uint32_t n_passed[N_ROUNDS / 10];

static void *
racer(void *unused)
{
  const struct atsk_policy_limits one = {.client_concurrency = 1};
  for (uint32_t i = 0; i < N_ROUNDS / 10; i++) {
    struct atsk_limits_hold hold = {0, 0};
    (void)pthread_barrier_wait(&barrier);
    if (ask(&one, 50, ipv4(8, 8, (uint8_t)(i >> 8), (uint8_t)i), START, &hold).verdict == ATSK_LIMITS_ALLOWED) {
      atomic_fetch_add(&n_passed[i], 1);
    }
    (void)pthread_barrier_wait(&barrier);
    atsk_limits_release(&hold);
  }
  return unused;
}

static void
threads_race(void)
{
  pthread_t threads[4];
  uint32_t n_wrong = 0;
  REQUIRE(pthread_barrier_init(&barrier, NULL, 4) == 0, "barrier");
  for (unsigned i = 0; i < 4; i++) {
    REQUIRE(pthread_create(&threads[i], NULL, racer, NULL) == 0, "thread");
  }
  for (unsigned i = 0; i < 4; i++) {
    REQUIRE(pthread_join(threads[i], NULL) == 0, "join");
  }
  for (uint32_t i = 0; i < N_ROUNDS / 10; i++) {
    n_wrong += n_passed[i] != 1 ? 1 : 0;
  }
  CHECK(n_wrong == 0, "of four first requests at once one passes, %d times: %u wrong", N_ROUNDS / 10, n_wrong);
}

int
main(void)
{
  REQUIRE(atsk_limits_init() == ATSK_OK, "key");
  rates();
  concurrency();
  totals();
  exemptions();
  threads_share();
  threads_race();
  full();
  return tap_end();
}
