/* N readers and one writer over publish.c.  The writer commits without pause: virtual hosts, services, certificates, all of one
 * generation; what it replaces is retired and, in poisoned builds, overwritten.  A reader resolves hosts in a read section, picks by every
 * algorithm, lets attempts fail and succeed, in and after the section, and counts what cannot be of a published generation:
 *
 *   torn     one table in which two hosts are of different generations
 *   stale    a table older than one that was current before the read section began
 *   poisoned bytes, ids or addresses that no commit ever wrote
 *
 * All three must be 0.  Usage: torture SECONDS READERS; prints one line of figures, and ends with 1 if one of them is not 0. */
#include "certificates_made.h"
#include "table/match.h"
#include "staging.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#define N_HOSTS 64u
#define N_MARKED 8u /* services whose endpoints tell the generation */
#define N_MADE 2u
#define STABLE_MAX 20u /* endpoints of the service that all generations have */

struct counts {
  uint64_t reads, torn, stale, poisoned, generations;
};

static atomic_bool is_over;
static _Atomic uint64_t last_published; /* generations, not versions */
static char hosts[N_HOSTS][32];
static struct atsk_span blobs[2]; /* of even and odd generations: one rule, then two */
static struct made made[N_MADE];
static uint64_t seed;

static uint64_t
next_random(uint64_t *state)
{
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * UINT64_C(2685821657736338717);
}

static uint64_t
now_ms(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000 + 1;
}

/* Ids that say what they are: services of generation g are g * 16 + n, all of them replaced by each commit but the stable one. */
static uint64_t
service_id(uint64_t generation, uint64_t n)
{
  return UINT64_C(0x5E00000000000000) | (generation * 16 + n);
}

static uint64_t
generation_of(uint64_t id)
{
  return (id & UINT64_C(0x00FFFFFFFFFFFFFF)) / 16;
}

static void
expect(enum atsk_status st, const char *what)
{
  if (st != ATSK_OK) {
    fprintf(stderr, "torture: %s: status %d\n", what, (int)st);
    exit(3);
  }
}

/* A stable service's endpoints: some ready, some draining, of several weights; now and then none is ready, or there are none. */
static enum atsk_status
stage_stable(uint64_t generation, uint32_t n)
{
  struct atsk_endpoint_record records[STABLE_MAX];
  for (uint32_t i = 0; i < n; i++) {
    records[i]        = endpoint_record((uint32_t)(generation & 7) + i, 8080); /* most of them stay from one set to the next */
    records[i].weight = generation % 3 == 0 ? 1 + i % 4 : 1;
    records[i].flags  = (generation + i) % 4 == 0 || generation % 11 == 0 ? ATSK_ENDPOINT_SERVING | ATSK_ENDPOINT_TERMINATING
                                                                          : ATSK_ENDPOINT_READY | ATSK_ENDPOINT_SERVING;
  }
  return atsk_commit_service(1, records_span(records, n), ATSK_NONE);
}

/* One generation: new services, every host a new virtual host that names them, a stable service and a certificate swapped. */
static void
commit_generation(uint64_t generation)
{
  uint64_t version;
  expect(atsk_commit_begin(), "begin");
  for (uint64_t n = 0; n < N_MARKED; n++) {
    expect(stage_service(service_id(generation, n), (uint32_t)(generation & 0xFFF), 1 + (uint32_t)n), "service");
  }
  expect(stage_stable(generation, (uint32_t)(generation % (STABLE_MAX + 1))), "stable service");
  const struct made *m = &made[generation % N_MADE];
  if (generation % 7 == 0) {
    expect(atsk_commit_certificate_empty(1), "certificate");
  } else {
    expect(atsk_commit_certificate(1, made_chain(m), made_key(m)), "certificate");
  }
  for (uint32_t i = 0; i < N_HOSTS; i++) {
    const uint64_t services[2] = {service_id(generation, i % N_MARKED), 1};
    const uint64_t routes[3]   = {i, generation, generation + 1};
    struct atsk_str host       = {hosts[i], strlen(hosts[i])};
    expect(atsk_commit_vhost(0, ATSK_PLACE_EXACT, host, blobs[generation % 2], services, 2, routes, generation % 2 ? 3 : 2),
           "vhost");
    if (i % 8 == generation % 8) {
      expect(atsk_commit_tls(0, ATSK_PLACE_EXACT, host, (const uint64_t[]){1}, 1), "tls");
    }
  }
  if (generation > 1) {
    for (uint64_t n = 0; n < N_MARKED; n++) {
      expect(atsk_commit_service_drop(service_id(generation - 1, n)), "drop");
    }
  }
  expect(atsk_commit_publish(&version), "publish");
  /* release: a reader that sees this number in its acquire load must find this generation, or a later one. */
  atomic_store_explicit(&last_published, generation, memory_order_release);
}

/* A change of few things, and now and then one that is given up. */
static void
commit_small(uint64_t generation, uint64_t *random)
{
  uint64_t version;
  uint32_t n = (uint32_t)(next_random(random) % 5);
  expect(atsk_commit_begin(), "begin");
  expect(stage_stable(generation + n, 1 + n * 3), "stable service");
  if (n == 0) {
    expect(atsk_commit_service_drop(service_id(generation, 0)), "drop");
    if (atsk_commit_publish(&version) != ATSK_E_STATE) {
      expect(ATSK_E_STATE, "a service in use was dropped");
    }
    atsk_commit_abort();
    return;
  }
  expect(atsk_commit_publish(&version), "publish");
}

static void *
writer(void *result)
{
  uint64_t random = seed | 1, generation = 1;
  while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
    commit_generation(++generation);
    for (uint64_t n = next_random(&random) % 4; n > 0; n--) {
      commit_small(generation, &random);
    }
  }
  *(uint64_t *)result = generation;
  return NULL;
}

/* The endpoints of a pick tell the generation that its set was made in; all of one set the same. */
static bool
pick_is_good(const struct atsk_pick *pick)
{
  if (pick->n == 0 || pick->n > ATSK_TRIES_MAX || pick->current >= pick->n) {
    return false;
  }
  for (uint32_t c = 0; c < pick->n; c++) {
    struct atsk_endpoint_address address;
    atsk_pick_address(pick, c, &address);
    if (address.family != ATSK_FAMILY_IPV4 || address.port != 8080 || address.addr[0] != 10 || address.addr[15] != 0) {
      return false;
    }
  }
  return true;
}

/* A pick by any algorithm; with the tag of an endpoint that was there, that is somewhere else, or nowhere. */
static enum atsk_status
pick_any(struct atsk_service *service, uint64_t *random, uint64_t tag, struct atsk_pick *pick)
{
  const uint64_t drawn             = next_random(random);
  const struct atsk_pick_wish wish = {.algorithm     = (uint32_t)(drawn % (ATSK_BALANCE_HASH + 1)),
                                      .load_percent  = drawn & 64 ? 125 : 0,
                                      .panic_percent = 50,
                                      .has_hash      = true,
                                      .hash          = next_random(random),
                                      .affinity_tag  = drawn & 128 ? tag : 0,
                                      .random        = drawn,
                                      .now_ms        = now_ms()};
  return atsk_service_choose(service, &wish, pick);
}

/* An attempt that fails, one that succeeds, or both; with the pick held, in a read section or not. */
static void
pick_live(const struct atsk_pick *pick, uint64_t *random)
{
  const struct atsk_health_rules rules = {.max_failures = 2, .base_ms = 1, .max_ms = 8};
  for (uint64_t n = next_random(random) % 4; n > 0; n--) {
    (void)atsk_pick_failed(pick, &rules, now_ms(), next_random(random));
  }
  if (next_random(random) % 4 == 0) {
    (void)atsk_pick_succeeded(pick);
  }
}

static void
read_once(uint64_t *random, struct counts *counts, struct atsk_pick *held, SSL_CTX *ctx)
{
  /* acquire: what was published before this number.  Pairs with: the store in commit_generation(). */
  uint64_t oldest                = atomic_load_explicit(&last_published, memory_order_acquire);
  uint64_t seen                  = 0;
  const struct atsk_table *table = atsk_read_begin();
  for (unsigned i = 0; i < 4; i++) {
    uint32_t at             = (uint32_t)(next_random(random) % N_HOSTS);
    struct atsk_str host    = {hosts[at], strlen(hosts[at])};
    struct atsk_match match = atsk_match_request(table, 80, host, (struct atsk_str){"/x/y", 4});
    if (match.kind != ATSK_MATCH_RULE || match.rule->n_backends != 1) {
      counts->poisoned++;
      continue;
    }
    struct atsk_service *service = atsk_match_service(&match, next_random(random));
    uint64_t id                  = atsk_service_id(service);
    if (id >> 56 != 0x5E || match.vhost->blob.len != blobs[generation_of(id) % 2].len) {
      counts->poisoned++;
      continue;
    }
    counts->stale += generation_of(id) < oldest;
    counts->torn += seen != 0 && seen != generation_of(id);
    seen = generation_of(id);
    struct atsk_pick pick;
    struct atsk_service *picked  = next_random(random) % 2 == 0 ? service : match.vhost->services[1];
    const struct atsk_pick *last = &held[next_random(random) % 8];
    enum atsk_status st          = pick_any(picked, random, last->set != NULL ? atsk_pick_tag(last, last->current) : 1, &pick);
    if (st == ATSK_MISS && picked != service) { /* there may be no endpoint */
      continue;
    }
    if (st != ATSK_OK || !pick_is_good(&pick)) {
      counts->poisoned++;
    } else if (next_random(random) % 4 == 0) { /* kept beyond the read section, as a transaction does */
      struct atsk_pick *slot = &held[next_random(random) % 8];
      counts->poisoned += slot->set != NULL && !pick_is_good(slot);
      if (slot->set != NULL) {
        pick_live(slot, random);
      }
      atsk_pick_release(slot);
      *slot = pick;
    } else {
      pick_live(&pick, random);
      atsk_pick_advance(&pick, pick.n - 1);
      pick_live(&pick, random);
      atsk_pick_release(&pick);
    }
    if (next_random(random) % 64 == 0) {
      const struct atsk_tls_policy *policy = atsk_match_sni(table, 443, host);
      SSL *ssl                             = policy == NULL ? NULL : SSL_new(ctx);
      if (ssl != NULL) {
        counts->poisoned += atsk_tls_policy_apply(policy, ssl) < ATSK_OK;
        SSL_free(ssl);
      }
    }
  }
  atsk_read_end();
  counts->reads++;
}

struct reader {
  pthread_t thread;
  struct counts counts;
  uint64_t random;
};

static void *
reader(void *argument)
{
  struct reader *me        = argument;
  struct atsk_pick held[8] = {{0}};
  SSL_CTX *ctx             = SSL_CTX_new(TLS_server_method());
  while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
    read_once(&me->random, &me->counts, held, ctx);
  }
  for (unsigned i = 0; i < 8; i++) {
    atsk_pick_release(&held[i]);
  }
  SSL_CTX_free(ctx);
  return NULL;
}

/* Requests that the stable service still counts as in flight, when there are none. */
static uint64_t
in_flight_left(void)
{
  uint64_t n                     = 0;
  const struct atsk_table *table = atsk_read_begin();
  struct atsk_match match =
    atsk_match_request(table, 80, (struct atsk_str){hosts[0], strlen(hosts[0])}, (struct atsk_str){"/x", 2});
  struct atsk_endpoints_view view;
  atsk_service_view(match.vhost->services[1], &view);
  for (uint32_t i = 0; i < view.n; i++) {
    struct atsk_endpoint_health health;
    atsk_endpoints_health(&view, i, &health);
    n += health.in_flight;
  }
  atsk_read_end();
  return n;
}

/* Takes all of the last generation away: the leak checker then sees what was not reclaimed. */
static void
commit_nothing(uint64_t generation)
{
  uint64_t version;
  expect(atsk_commit_begin(), "begin");
  for (uint32_t i = 0; i < N_HOSTS; i++) {
    struct atsk_str host = {hosts[i], strlen(hosts[i])};
    expect(atsk_commit_vhost_drop(0, ATSK_PLACE_EXACT, host), "drop");
    (void)!atsk_commit_tls_drop(0, ATSK_PLACE_EXACT, host);
  }
  for (uint64_t n = 0; n < N_MARKED; n++) {
    expect(atsk_commit_service_drop(service_id(generation, n)), "drop");
  }
  expect(atsk_commit_service_drop(1), "drop");
  expect(atsk_commit_certificate_drop(1), "drop");
  expect(atsk_commit_publish(&version), "publish");
  atsk_reclaim_barrier();
}

int
main(int argc, char **argv)
{
  enum { READERS_MAX = 64 };
  static struct reader readers[READERS_MAX];
  const struct blob_path paths[2] = {{"/x", false, 0}, {"/x/z", true, 1}};
  double seconds                  = argc > 1 ? strtod(argv[1], NULL) : 3;
  long n_readers                  = argc > 2 ? strtol(argv[2], NULL, 10) : 2;
  const char *seed_text           = getenv("ATSK8S_SEED");
  if (n_readers < 1 || n_readers > READERS_MAX) {
    fprintf(stderr, "torture: READERS is 1..%d\n", READERS_MAX);
    return 2;
  }
  seed = (seed_text == NULL ? 1 : strtoull(seed_text, NULL, 0)) * UINT64_C(0x9E3779B97F4A7C15) | 1;
  for (unsigned i = 0; i < 2; i++) {
    blobs[i] = blob_build(paths, 1 + i, 1, 2);
  }
  for (uint32_t i = 0; i < N_HOSTS; i++) {
    snprintf(hosts[i], sizeof hosts[i], "h%u.n%u.example", i, i % 5);
  }
  for (unsigned i = 0; i < N_MADE; i++) {
    made[i] = made_certificate("torture.test", EVP_EC_gen("P-256"), EVP_sha256(), NULL);
  }
  commit_generation(1);
  pthread_t writer_thread;
  uint64_t generations = 0;
  pthread_create(&writer_thread, NULL, writer, &generations);
  for (long i = 0; i < n_readers; i++) {
    readers[i].random = (seed ^ (uint64_t)i << 32) | 1;
    pthread_create(&readers[i].thread, NULL, reader, &readers[i]);
  }
  struct timespec duration = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
  nanosleep(&duration, NULL);
  atomic_store(&is_over, true);
  pthread_join(writer_thread, NULL);
  struct counts sum = {0};
  for (long i = 0; i < n_readers; i++) {
    pthread_join(readers[i].thread, NULL);
    sum.reads += readers[i].counts.reads;
    sum.torn += readers[i].counts.torn;
    sum.stale += readers[i].counts.stale;
    sum.poisoned += readers[i].counts.poisoned;
  }
  sum.poisoned += in_flight_left();
  commit_nothing(generations);
  for (unsigned i = 0; i < N_MADE; i++) {
    made_free(&made[i]);
    free((void *)(uintptr_t)blobs[i].ptr);
  }
  printf("reads %" PRIu64 " generations %" PRIu64 " torn %" PRIu64 " stale %" PRIu64 " poisoned %" PRIu64 "\n", sum.reads,
         generations, sum.torn, sum.stale, sum.poisoned);
  return sum.torn == 0 && sum.stale == 0 && sum.poisoned == 0 && sum.reads > 0 ? 0 : 1;
}
