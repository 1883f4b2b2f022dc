/*
 * Nanoseconds per routing decision (normalise host and path, match, choose the service), the same with an endpoint picked and given
 * back, cost of a commit, bytes per route.  Prints JSON lines, one figure each; `build.py bench lookup` runs it.
 *
 * Usage: bench_lookup [--quick]
 *        bench_lookup --count HOSTS    nothing is timed: each series of questions is asked once, by a function of its own, for a
 *                                      tool that counts instructions (benchmarks/lookup.py: callgrind)
 */
#include "../tests/c/staging.h"
#include "table/match.h"

#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h> /* its requests are no-ops where callgrind does not run */
#else
#define CALLGRIND_START_INSTRUMENTATION
#define CALLGRIND_STOP_INSTRUMENTATION
#define CALLGRIND_DUMP_STATS_AT(name) (void)(name)
#endif

#define N_SERVICES 1000u
#define BATCH 64u        /* decisions between two looks at the clock */
#define N_BATCHES 20000u /* batches of one measurement; a tenth with --quick */
#define COUNTED 4096u    /* decisions of one measurement under callgrind */

struct question {
  char authority[64];
  char path[64];
  uint16_t authority_len, path_len;
};

static unsigned n_batches = N_BATCHES;
static bool is_counting; /* instructions, under callgrind; nothing is timed */
static atomic_bool is_over;

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

static void
expect(enum atsk_status st, const char *what)
{
  if (st != ATSK_OK) {
    fprintf(stderr, "bench_lookup: %s: status %d\n", what, (int)st);
    exit(3);
  }
}

/* Hosts stand below 100 namespaces' suffixes, as in a cluster with wildcard DNS. */
static int
host_name(char *out, size_t room, uint32_t i)
{
  return snprintf(out, room, "app%u.ns%u.apps.example.com", i, i % 100);
}

/* Of a thousand hosts that lie all over the table, on all services, number `i`. */
static uint32_t
hot_host(uint32_t i, uint32_t n_hosts)
{
  return (uint32_t)(((uint64_t)i * n_hosts / 1000 / 1000 * 1000 + i) % n_hosts);
}

/* One decision, all of it; whether a rule was found. */
static inline bool
decide(const struct question *q, uint64_t turn, bool has_endpoint)
{
  struct atsk_host host;
  struct atsk_str path;
  static _Thread_local char room[ATSK_PATH_MAX];
  if (atsk_host_normalise((struct atsk_str){q->authority, q->authority_len}, &host) != ATSK_REQUEST_FINE ||
      atsk_path_normalise((struct atsk_str){q->path, q->path_len}, room, &path) != ATSK_REQUEST_FINE) {
    return false;
  }
  bool found                     = false;
  const struct atsk_table *table = atsk_read_begin();
  struct atsk_match match        = atsk_match_request(table, 80, (struct atsk_str){host.bytes, host.len}, path);
  if (match.kind == ATSK_MATCH_RULE) {
    struct atsk_pick pick;
    struct atsk_service *service = atsk_match_service(&match, turn);
    found                        = service != NULL;
    if (has_endpoint && found) {
      const struct atsk_pick_wish wish = {.panic_percent = 50, .random = turn, .now_ms = 1};
      found                            = atsk_service_choose(service, &wish, &pick) == ATSK_OK;
      atsk_pick_release(&pick);
    }
  }
  atsk_read_end();
  return found;
}

static int
compare_u64(const void *a, const void *b)
{
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

struct figures {
  double median_ns, p99_ns, mean_ns, found;
};

/* Asks `n` questions at random, instructions counted; the questions are drawn before. */
static struct figures
count(const struct question *questions, uint32_t n, uint64_t seed, bool has_endpoint)
{
  static struct question asked[COUNTED];
  uint64_t random = seed | 1, n_found = 0;
  for (unsigned i = 0; i < COUNTED; i++) {
    asked[i] = questions[(next_random(&random) >> 32) % n];
  }
  CALLGRIND_START_INSTRUMENTATION;
  for (unsigned i = 0; i < COUNTED; i++) {
    n_found += decide(&asked[i], i, has_endpoint);
  }
  CALLGRIND_STOP_INSTRUMENTATION;
  return (struct figures){.found = (double)n_found / COUNTED};
}

/* Asks `n` questions at random; each of BATCH decisions counts as its batch's mean. */
static struct figures
measure(const struct question *questions, uint32_t n, uint64_t seed, bool has_endpoint)
{
  if (is_counting) {
    return count(questions, n, seed, has_endpoint);
  }
  uint64_t *batches = malloc(n_batches * sizeof *batches);
  uint64_t random = seed | 1, total = 0, n_found = 0;
  static struct question asked[BATCH];
  for (unsigned b = 0; b < n_batches; b++) {
    for (unsigned i = 0; i < BATCH; i++) {
      asked[i] = questions[(next_random(&random) >> 32) % n]; /* a real request's bytes were just read from a socket */
    }
    uint64_t start = now_ns();
    for (unsigned i = 0; i < BATCH; i++) {
      n_found += decide(&asked[i], i, has_endpoint);
    }
    batches[b] = now_ns() - start;
    total += batches[b];
  }
  qsort(batches, n_batches, sizeof *batches, compare_u64);
  struct figures figures = {.median_ns = (double)batches[n_batches / 2] / BATCH,
                            .p99_ns    = (double)batches[n_batches - n_batches / 100 - 1] / BATCH,
                            .mean_ns   = (double)total / (double)n_batches / BATCH,
                            .found     = (double)n_found / (double)n_batches / BATCH};
  free(batches);
  return figures;
}

static void
report(const char *what, uint32_t n_hosts, const char *drawn, struct figures f)
{
  if (is_counting) {
    char name[128];
    snprintf(name, sizeof name, "%s/%s/%u/%.3f", what, drawn, COUNTED, f.found);
    CALLGRIND_DUMP_STATS_AT(name);
    return;
  }
  printf("{\"figure\": \"%s\", \"hosts\": %u, \"drawn\": \"%s\", \"median_ns\": %.1f, \"p99_ns\": %.1f, \"mean_ns\": %.1f, "
         "\"found\": %.3f}\n",
         what, n_hosts, drawn, f.median_ns, f.p99_ns, f.mean_ns, f.found);
  fflush(stdout);
}

static void
question_set(struct question *q, const char *path)
{
  q->authority_len = (uint16_t)strlen(q->authority);
  q->path_len      = (uint16_t)snprintf(q->path, sizeof q->path, "%s", path);
}

/* --- tables -------------------------------------------------------------------------------------------------------------- */

static struct atsk_span simple_blob;

static void
place_host(uint32_t i)
{
  char name[64];
  int len                = host_name(name, sizeof name, i);
  const uint64_t service = 1 + i % N_SERVICES;
  const uint64_t route   = i;
  expect(atsk_commit_vhost(0, ATSK_PLACE_EXACT, (struct atsk_str){name, (size_t)len}, simple_blob, &service, 1, &route, 1),
         "vhost");
}

static void
publish(void)
{
  uint64_t version;
  expect(atsk_commit_publish(&version), "publish");
}

/* Adds hosts [from, to) in one commit. */
static void
table_grow(uint32_t from, uint32_t to)
{
  expect(atsk_commit_begin(), "begin");
  for (uint32_t i = from; i < to; i++) {
    place_host(i);
  }
  publish();
}

/* "*.wild.example.com", and a host with 1,000 paths. */
static void
table_base(void)
{
  static char text[1000][24];
  static struct blob_path paths[1000];
  const uint64_t service = 1, wildcard_route = UINT64_C(1) << 40;
  static uint64_t routes[1000];
  for (uint32_t i = 0; i < 1000; i++) {
    snprintf(text[i], sizeof text[i], "/api/v%u/item%u", i % 4, i);
    paths[i]  = (struct blob_path){text[i], false, 0};
    routes[i] = (UINT64_C(1) << 41) + i;
  }
  struct atsk_span wide = blob_build(paths, 1000, ATSK_NONE, 1);
  expect(atsk_commit_begin(), "begin");
  for (uint64_t id = 1; id <= N_SERVICES; id++) {
    expect(stage_service(id, (uint32_t)id * 4, 4), "service");
  }
  expect(atsk_commit_vhost(0, ATSK_PLACE_WILDCARD, (struct atsk_str){"wild.example.com", 16}, simple_blob, &service, 1,
                           &wildcard_route, 1),
         "wildcard");
  expect(atsk_commit_vhost(0, ATSK_PLACE_EXACT, (struct atsk_str){"wide.example.com", 16}, wide, &service, 1, routes, 1000),
         "wide");
  publish();
  free((void *)(uintptr_t)wide.ptr);
}

/* --- measurements ------------------------------------------------------------------------------------------------------------ */

static void
measure_table(uint32_t n_hosts, bool is_quick)
{
  struct question *questions = malloc(n_hosts * sizeof *questions);
  for (uint32_t i = 0; i < n_hosts; i++) {
    host_name(questions[i].authority, sizeof questions[i].authority, i);
    question_set(&questions[i], "/app/page.html");
  }
  unsigned n_rounds = is_quick ? 1 : 3;
  for (unsigned round = 0; round < n_rounds; round++) {
    report("hit", n_hosts, "uniform", measure(questions, n_hosts, 11 + round, false));
    report("hit and endpoint", n_hosts, "uniform", measure(questions, n_hosts, 21 + round, true));
    if (n_hosts >= 1000) {
      struct question *hot = malloc(1000 * sizeof *hot);
      for (uint32_t i = 0; i < 1000; i++) {
        hot[i] = questions[hot_host(i, n_hosts)];
      }
      report("hit", n_hosts, "hot 1000", measure(hot, 1000, 12 + round, false));
      report("hit and endpoint", n_hosts, "hot 1000", measure(hot, 1000, 22 + round, true));
      free(hot);
    }
  }
  static struct question others[1000];
  for (uint32_t i = 0; i < 1000; i++) {
    host_name(others[i].authority, sizeof others[i].authority, hot_host(i, n_hosts));
    question_set(&others[i], "/app/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/page.html");
  }
  report("deep path", n_hosts, "hot 1000", measure(others, 1000, 17, false));
  for (uint32_t i = 0; i < 1000; i++) {
    snprintf(others[i].authority, sizeof others[i].authority, "no%u.ns%u.apps.example.com", i, i % 100);
    question_set(&others[i], "/app/page.html");
  }
  report("miss", n_hosts, "hot 1000", measure(others, 1000, 13, false));
  for (uint32_t i = 0; i < 1000; i++) {
    snprintf(others[i].authority, sizeof others[i].authority, "any%u.wild.example.com", i);
    question_set(&others[i], "/app/page.html");
  }
  report("wildcard", n_hosts, "hot 1000", measure(others, 1000, 14, false));
  for (uint32_t i = 0; i < 1000; i++) {
    char path[64];
    snprintf(others[i].authority, sizeof others[i].authority, "wide.example.com");
    snprintf(path, sizeof path, "/api/v%u/item%u/x", i % 4, i);
    question_set(&others[i], path);
  }
  report("1000 paths on a host", n_hosts, "uniform", measure(others, 1000, 15, false));
  for (uint32_t i = 0; i < 1000; i++) {
    question_set(&others[i], "/api/./v1//x/../it%65m1/x");
  }
  report("path to normalise", n_hosts, "uniform", measure(others, 1000, 16, false));
  free(questions);
}

/* Median and p99 of one commit, in microseconds, over `n` commits of the kind. */
static void
measure_commits(const char *what, uint32_t n_hosts, bool is_endpoint, unsigned n)
{
  uint64_t *times = malloc(n * sizeof *times), random = 99;
  for (unsigned i = 0; i < n; i++) {
    uint32_t at    = (uint32_t)((next_random(&random) >> 32) % n_hosts);
    uint64_t start = now_ns();
    expect(atsk_commit_begin(), "begin");
    if (is_endpoint) {
      expect(stage_service(1 + at % N_SERVICES, i % 1000, 4), "service");
    } else {
      place_host(at);
    }
    publish();
    times[i] = now_ns() - start;
  }
  qsort(times, n, sizeof *times, compare_u64);
  printf("{\"figure\": \"%s\", \"hosts\": %u, \"median_us\": %.2f, \"p99_us\": %.2f}\n", what, n_hosts, (double)times[n / 2] / 1e3,
         (double)times[n - n / 100 - 1] / 1e3);
  fflush(stdout);
  free(times);
  atsk_reclaim_barrier();
}

struct asker {
  pthread_t thread;
  const struct question *questions;
  uint64_t seed, n_decisions, cpu_ns;
};

static void *
asker(void *argument)
{
  struct asker *me = argument;
  uint64_t random  = me->seed | 1;
  while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
    for (unsigned i = 0; i < BATCH; i++) {
      (void)!decide(&me->questions[(next_random(&random) >> 32) % 1000], i, true);
    }
    me->n_decisions += BATCH;
  }
  struct timespec t; /* processor time, so that whoever shares the machine does not count */
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  me->cpu_ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
  return NULL;
}

/* Decisions per second of `n_readers` threads, with or without a writer that commits all the time. */
static void
measure_threads(uint32_t n_hosts, unsigned n_readers, bool has_writer, double seconds)
{
  static struct question hot[1000];
  static struct asker askers[16];
  uint64_t n_commits = 0, total = 0, cpu_ns = 0, random = 5;
  for (uint32_t i = 0; i < 1000; i++) {
    host_name(hot[i].authority, sizeof hot[i].authority, hot_host(i, n_hosts));
    question_set(&hot[i], "/app/page.html");
  }
  atomic_store(&is_over, false);
  uint64_t start = now_ns();
  for (unsigned i = 0; i < n_readers; i++) {
    askers[i] = (struct asker){.questions = hot, .seed = 77 + i};
    pthread_create(&askers[i].thread, NULL, asker, &askers[i]);
  }
  uint64_t until = start + (uint64_t)(seconds * 1e9);
  while (now_ns() < until) {
    if (has_writer) {
      expect(atsk_commit_begin(), "begin");
      place_host((uint32_t)((next_random(&random) >> 32) % n_hosts));
      publish();
      n_commits++;
    } else {
      struct timespec step = {.tv_nsec = 1000000};
      nanosleep(&step, NULL);
    }
  }
  atomic_store(&is_over, true);
  for (unsigned i = 0; i < n_readers; i++) {
    pthread_join(askers[i].thread, NULL);
    total += askers[i].n_decisions;
    cpu_ns += askers[i].cpu_ns;
  }
  double took_s = (double)(now_ns() - start) / 1e9;
  printf("{\"figure\": \"threads\", \"hosts\": %u, \"readers\": %u, \"writer\": %s, \"decisions_per_s\": %.0f, "
         "\"cpu_ns_per_decision\": %.1f, "
         "\"commits_per_s\": %.0f}\n",
         n_hosts, n_readers, has_writer ? "true" : "false", (double)total / took_s, (double)cpu_ns / (double)total,
         (double)n_commits / took_s);
  fflush(stdout);
  atsk_reclaim_barrier();
}

static size_t
heap_bytes(void)
{
  struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

/* Resident bytes, by the kernel's count (/proc/self/statm, second field, in pages). */
static long long
resident_bytes(void)
{
  long long pages = 0, resident = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (file == NULL || fscanf(file, "%lld %lld", &pages, &resident) != 2) {
    resident = 0;
  }
  if (file != NULL) {
    fclose(file);
  }
  return resident * 4096;
}

/* Memory before and after a great many commits, virtual hosts and endpoint sets in turn. */
static void
measure_memory(uint32_t n_hosts, unsigned n_commits)
{
  uint64_t random   = 31;
  long long settled = 0;
  for (unsigned i = 0; i < n_commits + n_commits / 10; i++) {
    if (i == n_commits / 10) { /* the allocator has its working set by now */
      atsk_reclaim_barrier();
      settled = resident_bytes();
    }
    uint32_t at = (uint32_t)((next_random(&random) >> 32) % n_hosts);
    expect(atsk_commit_begin(), "begin");
    if (i % 2 == 0) {
      place_host(at);
    } else {
      expect(stage_service(1 + at % N_SERVICES, i % 1000, 4), "service");
    }
    publish();
  }
  atsk_reclaim_barrier();
  printf("{\"figure\": \"resident memory over commits\", \"hosts\": %u, \"commits\": %u, \"before_bytes\": %lld, \"growth_bytes\": "
         "%lld}\n",
         n_hosts, n_commits, settled, resident_bytes() - settled);
  fflush(stdout);
}

int
main(int argc, char **argv)
{
  bool is_quick                 = argc > 1 && strcmp(argv[1], "--quick") == 0;
  const struct blob_path path   = {"/", false, 0};
  static const uint32_t sizes[] = {100, 1000, 10000, 100000, 1000000};
  uint32_t n_hosts              = 0;
  n_batches                     = is_quick ? N_BATCHES / 10 : N_BATCHES;
  simple_blob                   = blob_build(&path, 1, ATSK_NONE, 1);
  table_base();
  if (argc > 2 && strcmp(argv[1], "--count") == 0) {
    is_counting = true;
    n_hosts     = (uint32_t)strtoul(argv[2], NULL, 10);
    table_grow(0, n_hosts);
    atsk_reclaim_barrier();
    measure_table(n_hosts, true);
    free((void *)(uintptr_t)simple_blob.ptr);
    return 0;
  }
  for (unsigned s = 0; s < (is_quick ? 4 : 5); s++) {
    size_t before  = heap_bytes();
    uint64_t start = now_ns();
    table_grow(n_hosts, sizes[s]);
    double took_us = (double)(now_ns() - start) / 1e3;
    atsk_reclaim_barrier();
    printf("{\"figure\": \"bytes per simple route\", \"hosts\": %u, \"bytes\": %.0f}\n", sizes[s],
           (double)(heap_bytes() - before) / (sizes[s] - n_hosts));
    printf("{\"figure\": \"insert in one commit\", \"hosts\": %u, \"us_per_host\": %.2f}\n", sizes[s],
           took_us / (sizes[s] - n_hosts));
    n_hosts = sizes[s];
    measure_table(n_hosts, is_quick);
    if (n_hosts >= 1000 && n_hosts <= 100000) {
      measure_commits("commit of one virtual host", n_hosts, false, is_quick ? 2000 : 20000);
      measure_commits("commit of one endpoint set", n_hosts, true, is_quick ? 2000 : 20000);
    }
    if (n_hosts == 10000) {
      measure_memory(n_hosts, is_quick ? 100000 : 1000000);
    }
    if (n_hosts == 100000) {
      double seconds = is_quick ? 0.5 : 3;
      measure_threads(n_hosts, 1, false, seconds);
      measure_threads(n_hosts, 2, false, seconds);
      measure_threads(n_hosts, 1, true, seconds);
      measure_threads(n_hosts, 2, true, seconds);
    }
  }
  free((void *)(uintptr_t)simple_blob.ptr);
  return 0;
}
