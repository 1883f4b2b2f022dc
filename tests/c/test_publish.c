/* Commits: what is visible when, what is refused, what abort undoes, and every allocation made to fail in turn. */
#include "table/match.h"
#include "staging.h"
#include "tap.h"

static uint64_t
service_of(const char *host)
{
  const struct atsk_table *table = atsk_read_begin();
  struct atsk_match match        = atsk_match_request(table, 0, (struct atsk_str){host, strlen(host)}, STR("/"));
  uint64_t id                    = match.kind == ATSK_MATCH_RULE ? atsk_service_id(atsk_match_service(&match, 0)) : 0;
  atsk_read_end();
  return id;
}

static uint32_t
endpoints_of(const char *host)
{
  const struct atsk_table *table = atsk_read_begin();
  struct atsk_match match        = atsk_match_request(table, 0, (struct atsk_str){host, strlen(host)}, STR("/"));
  uint32_t n                     = match.kind == ATSK_MATCH_RULE ? atsk_service_size(atsk_match_service(&match, 0)) : 0;
  atsk_read_end();
  return n;
}

static void
begin(void)
{
  REQUIRE(atsk_commit_begin() == ATSK_OK, "begin");
}

static uint64_t
publish(void)
{
  uint64_t version = 0;
  REQUIRE(atsk_commit_publish(&version) == ATSK_OK, "publish");
  return version;
}

static void
out_of_order(void)
{
  uint64_t version = 77, id = 1;
  const struct blob_path path = {"/", false, 0};
  struct atsk_span blob       = blob_build(&path, 1, ATSK_NONE, 1);
  CHECK(atsk_table_version() == 0 && atsk_read_begin() == NULL, "nothing published: version 0, no table");
  atsk_read_end();
  CHECK(atsk_commit_publish(&version) == ATSK_E_STATE && version == 77, "publish without begin");
  CHECK(stage_service(1, 0, 1) == ATSK_E_STATE, "service without begin");
  CHECK(atsk_commit_service_name(1, STR("a"), 1, ATSK_NONE) == ATSK_E_STATE, "service name without begin");
  CHECK(atsk_commit_service_drop(1) == ATSK_E_STATE, "service drop without begin");
  CHECK(atsk_commit_certificate_empty(1) == ATSK_E_STATE, "certificate without begin");
  CHECK(atsk_commit_certificate_drop(1) == ATSK_E_STATE, "certificate drop without begin");
  CHECK(atsk_commit_vhost(0, ATSK_PLACE_EXACT, STR("a"), blob, &id, 1, &id, 1) == ATSK_E_STATE, "virtual host without begin");
  CHECK(atsk_commit_vhost_drop(0, ATSK_PLACE_EXACT, STR("a")) == ATSK_E_STATE, "virtual host drop without begin");
  CHECK(atsk_commit_tls(0, ATSK_PLACE_EXACT, STR("a"), &id, 1) == ATSK_E_STATE, "TLS without begin");
  CHECK(atsk_commit_tls_drop(0, ATSK_PLACE_EXACT, STR("a")) == ATSK_E_STATE, "TLS drop without begin");
  atsk_commit_abort(); /* legal */
  begin();
  CHECK(atsk_commit_begin() == ATSK_E_STATE, "begin twice");
  atsk_commit_abort();
  begin();
  CHECK(publish() == 1, "an empty commit is version 1");
  CHECK(atsk_table_version() == 1, "and is published");
  free((void *)(uintptr_t)blob.ptr);
}

static void
refused(void)
{
  uint64_t id = 1, unknown = 999;
  const struct blob_path path = {"/", false, 0};
  struct atsk_span blob       = blob_build(&path, 1, ATSK_NONE, 1);
  begin();
  REQUIRE(stage_service(1, 0, 1) == ATSK_OK && atsk_commit_certificate_empty(1) == ATSK_OK, "service, certificate");
  static const char *const hosts[] = {"", "A.example", "a.example.", "a.example:80", "*.example", "a..b", "[::1]:80"};
  for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
    struct atsk_str host = {hosts[i], strlen(hosts[i])};
    CHECK(atsk_commit_vhost(0, ATSK_PLACE_EXACT, host, blob, &id, 1, &id, 1) == ATSK_E_HOST, "not a host of a table: \"%s\"",
          hosts[i]);
  }
  CHECK(atsk_commit_vhost(0, ATSK_PLACE_FALLBACK, STR("a"), blob, &id, 1, &id, 1) == ATSK_E_HOST, "a fallback has no host");
  CHECK(atsk_commit_vhost(0, (enum atsk_vhost_place)9, STR("a"), blob, &id, 1, &id, 1) == ATSK_E_RANGE, "no such place");
  CHECK(atsk_commit_vhost(0, ATSK_PLACE_EXACT, STR("a"), blob, &unknown, 1, &id, 1) == ATSK_E_UNKNOWN, "unknown service");
  CHECK(atsk_commit_vhost(0, ATSK_PLACE_EXACT, STR("a"), blob, NULL, 0, &id, 1) == ATSK_E_RANGE,
        "fewer services than the blob names");
  CHECK(atsk_commit_vhost(0, ATSK_PLACE_EXACT, STR("a"), blob, &id, 1, NULL, 0) == ATSK_E_RANGE,
        "fewer routes than the blob names");
  CHECK(atsk_commit_vhost(0, ATSK_PLACE_EXACT, STR("a"), (struct atsk_span){blob.ptr, 8}, &id, 1, &id, 1) == ATSK_E_TRUNCATED,
        "a blob cut off");
  CHECK(atsk_commit_vhost(0, ATSK_PLACE_EXACT, STR("a"), (struct atsk_span){NULL, 0}, &id, 1, &id, 1) == ATSK_E_TRUNCATED,
        "no blob");
  CHECK(atsk_commit_tls(0, ATSK_PLACE_EXACT, STR("a"), &unknown, 1) == ATSK_E_UNKNOWN, "unknown certificate");
  CHECK(atsk_commit_tls(0, ATSK_PLACE_NO_HOST, STR(""), &id, 1) == ATSK_E_RANGE, "TLS for no host");
  CHECK(atsk_commit_tls(0, ATSK_PLACE_EXACT, STR("a"), NULL, 0) == ATSK_E_RANGE, "TLS without certificates");
  CHECK(atsk_commit_service_drop(999) == ATSK_E_UNKNOWN && atsk_commit_certificate_drop(999) == ATSK_E_UNKNOWN,
        "drop of the unknown");
  CHECK(atsk_commit_service(5, (struct atsk_span){(const uint8_t *)"x", 1}, ATSK_NONE) == ATSK_E_TRUNCATED, "bad records");
  CHECK(atsk_commit_service(5, (struct atsk_span){NULL, 0}, 1001) == ATSK_E_RANGE, "more failures than there may be");
  CHECK(atsk_commit_vhost(0, ATSK_PLACE_EXACT, STR("a"), blob, (const uint64_t[]){5}, 1, &id, 1) == ATSK_E_UNKNOWN,
        "a service whose records were refused is unknown");
  CHECK(atsk_commit_certificate(5, (struct atsk_span){(const uint8_t *)"x", 1}, (struct atsk_span){(const uint8_t *)"y", 1}) ==
          ATSK_E_CERT,
        "bad certificate");
  CHECK(atsk_commit_vhost_drop(0, ATSK_PLACE_EXACT, STR("nobody")) == ATSK_MISS, "drop of what is not there: a miss");
  uint8_t *odd = malloc(blob.len + 1);
  memcpy(odd + 1, blob.ptr, blob.len);
  CHECK(atsk_commit_vhost(0, ATSK_PLACE_EXACT, STR("a"), (struct atsk_span){odd + 1, blob.len}, &id, 1, &id, 1) == ATSK_OK,
        "a blob at an odd address");
  free(odd);
  atsk_commit_abort();
  CHECK(service_of("a") == 0, "nothing of it was published");
  free((void *)(uintptr_t)blob.ptr);
}

static void
visible_at_publish(void)
{
  begin();
  REQUIRE(stage_service(1, 0, 3) == ATSK_OK && stage_vhost(0, ATSK_PLACE_EXACT, "a.example", 1, 1) == ATSK_OK, "stage");
  CHECK(service_of("a.example") == 0, "staged: not visible");
  publish();
  CHECK(service_of("a.example") == 1 && endpoints_of("a.example") == 3, "published: visible");

  begin();
  REQUIRE(stage_service(1, 0, 5) == ATSK_OK, "stage");
  CHECK(endpoints_of("a.example") == 3, "staged endpoints: not visible");
  atsk_commit_abort();
  CHECK(endpoints_of("a.example") == 3, "aborted: as before");
  begin();
  REQUIRE(stage_service(1, 0, 2) == ATSK_OK && stage_service(1, 0, 5) == ATSK_OK, "staged twice");
  publish();
  CHECK(endpoints_of("a.example") == 5, "the later one counts");

  begin();
  REQUIRE(atsk_commit_service_drop(1) == ATSK_OK, "drop");
  uint64_t version = 0;
  uint64_t before  = atsk_table_version();
  CHECK(atsk_commit_publish(&version) == ATSK_E_STATE && version == 0, "a service in use is not dropped");
  CHECK(atsk_table_version() == before && endpoints_of("a.example") == 5, "and nothing changed");
  CHECK(stage_vhost(0, ATSK_PLACE_EXACT, "b.example", 1, 1) == ATSK_E_UNKNOWN, "a dropped service is unknown");
  REQUIRE(atsk_commit_vhost_drop(0, ATSK_PLACE_EXACT, STR("a.example")) == ATSK_OK, "drop the user");
  CHECK(atsk_commit_publish(&version) == ATSK_OK, "with its last user it is");
  CHECK(service_of("a.example") == 0, "gone");

  begin();
  REQUIRE(stage_service(1, 0, 1) == ATSK_OK && stage_vhost(0, ATSK_PLACE_EXACT, "a.example", 1, 1) == ATSK_OK, "stage");
  REQUIRE(stage_vhost(0, ATSK_PLACE_EXACT, "a.example", 1, 2) == ATSK_OK, "replaced within the commit");
  REQUIRE(atsk_commit_vhost_drop(0, ATSK_PLACE_EXACT, STR("a.example")) == ATSK_OK, "dropped within the commit");
  REQUIRE(stage_vhost(0, ATSK_PLACE_WILDCARD, "example", 1, 2) == ATSK_OK, "another");
  publish();
  CHECK(service_of("a.example") == 1, "the wildcard serves");
  begin();
  REQUIRE(atsk_commit_vhost_drop(0, ATSK_PLACE_WILDCARD, STR("example")) == ATSK_OK, "drop");
  REQUIRE(atsk_commit_service_drop(1) == ATSK_OK, "drop");
  atsk_commit_abort();
  CHECK(service_of("a.example") == 1, "drops aborted: still serves");
  begin();
  REQUIRE(atsk_commit_service_drop(1) == ATSK_OK && stage_service(1, 0, 4) == ATSK_OK, "dropped and staged again");
  publish();
  CHECK(endpoints_of("a.example") == 4, "lives, with the new endpoints");
  begin();
  REQUIRE(atsk_commit_vhost_drop(0, ATSK_PLACE_WILDCARD, STR("example")) == ATSK_OK && atsk_commit_service_drop(1) == ATSK_OK,
          "drop");
  publish();
}

/* One commit that touches everything; `round` makes it differ.  The first status that is not success. */
static enum atsk_status
big_commit(unsigned round)
{
  char host[64];
  enum atsk_status st;
  for (uint64_t id = 1; id <= 5; id++) {
    if ((st = stage_service(id + round % 2, round, 1 + (uint32_t)id)) != ATSK_OK) {
      return st;
    }
  }
  if ((st = atsk_commit_service_name(50, STR("external.test"), 443, 0)) != ATSK_OK ||
      (st = atsk_commit_certificate_empty(1 + round % 3)) != ATSK_OK) {
    return st;
  }
  for (unsigned i = 0; i < 12; i++) {
    snprintf(host, sizeof host, "h%u.n%u.example", (i + round) % 16, i % 3);
    st = stage_vhost((uint16_t)(i % 4 == 3 ? 8443 : 0), i % 5 == 4 ? ATSK_PLACE_WILDCARD : ATSK_PLACE_EXACT, host, 2 + i % 3,
                     i + round);
    if (st != ATSK_OK) {
      return st;
    }
  }
  if ((st = stage_vhost(0, ATSK_PLACE_FALLBACK, "", 50, 1000)) != ATSK_OK ||
      (st = stage_vhost(0, ATSK_PLACE_NO_HOST, "", 3, 1001 + round)) != ATSK_OK) {
    return st;
  }
  const uint64_t certificate = 1 + round % 3;
  if ((st = atsk_commit_tls(0, ATSK_PLACE_EXACT, STR("h1.n1.example"), &certificate, 1)) != ATSK_OK ||
      (st = atsk_commit_tls(0, ATSK_PLACE_FALLBACK, STR(""), &certificate, 1)) != ATSK_OK) {
    return st;
  }
  snprintf(host, sizeof host, "h%u.n0.example", round % 16);
  st = atsk_commit_vhost_drop(0, ATSK_PLACE_EXACT, (struct atsk_str){host, strlen(host)});
  return st == ATSK_MISS ? ATSK_OK : st;
}

/* What readers can see of the whole table, as one number. */
static uint64_t
table_digest(void)
{
  uint64_t digest = 0;
  for (unsigned i = 0; i < 16; i++) {
    for (unsigned n = 0; n < 4; n++) {
      char host[64];
      snprintf(host, sizeof host, "h%u.n%u.example", i, n);
      digest = digest * 31 + service_of(host) * 64 + endpoints_of(host);
    }
  }
  return digest + atsk_table_version();
}

/* For each allocation of a commit: it fails, the call says so, abort leaves the table as it was, and the commit succeeds after. */
static void
without_memory(void)
{
  unsigned n_failed = 0;
  for (unsigned round = 0; round < 4; round++) {
    for (uint64_t nth = 1;; nth++) {
      uint64_t before = table_digest();
      fail_allocation(nth);
      enum atsk_status st = atsk_commit_begin();
      if (st == ATSK_OK) {
        st = big_commit(round);
      }
      bool has_failed = allocations >= nth;
      fail_allocation(0);
      REQUIRE(!has_failed || st == ATSK_E_NOMEM, "round %u, allocation %llu: status %d", round, (unsigned long long)nth, (int)st);
      if (!has_failed) {
        REQUIRE(st == ATSK_OK, "round %u: status %d", round, (int)st);
        uint64_t failing = 1, version;
        fail_allocation(failing); /* publishing allocates nothing */
        st = atsk_commit_publish(&version);
        fail_allocation(0);
        REQUIRE(st == ATSK_OK, "publish: status %d", (int)st);
        break;
      }
      n_failed++;
      atsk_commit_abort();
      REQUIRE(table_digest() == before, "round %u, allocation %llu: the table changed", round, (unsigned long long)nth);
    }
  }
  CHECK(n_failed > 200, "each of %u allocations failed in turn, nothing changed", n_failed);
}

/* A staging call that fails leaves its commit usable: the same call again succeeds, and so does publish. */
static void
goes_on(void)
{
  begin();
  for (uint64_t nth = 1; nth < 12; nth++) {
    fail_allocation(nth);
    (void)big_commit((unsigned)nth);
    fail_allocation(0);
  }
  CHECK(big_commit(3) == ATSK_OK, "after failures the same commit goes on");
  publish();
}

static void
many_ids(void)
{
  const uint64_t n = 3000;
  char host[64];
  begin();
  for (uint64_t i = 0; i < n; i++) {
    snprintf(host, sizeof host, "many%u.example", (unsigned)i);
    REQUIRE(stage_service(i << 32 | 7, 0, 1) == ATSK_OK && stage_vhost(0, ATSK_PLACE_EXACT, host, i << 32 | 7, i << 40) == ATSK_OK,
            "add");
  }
  publish();
  bool is_good = true;
  for (uint64_t i = 0; i < n; i++) {
    snprintf(host, sizeof host, "many%u.example", (unsigned)i);
    is_good &= service_of(host) == (i << 32 | 7);
  }
  CHECK(is_good, "%u services, each by its id", (unsigned)n);
  begin();
  for (uint64_t i = 0; i < n; i += 2) {
    snprintf(host, sizeof host, "many%u.example", (unsigned)i);
    REQUIRE(atsk_commit_vhost_drop(0, ATSK_PLACE_EXACT, (struct atsk_str){host, strlen(host)}) == ATSK_OK &&
              atsk_commit_service_drop(i << 32 | 7) == ATSK_OK,
            "drop");
  }
  publish();
  for (uint64_t i = 0; i < n; i++) {
    snprintf(host, sizeof host, "many%u.example", (unsigned)i);
    is_good &= service_of(host) == (i % 2 == 0 ? 3 : i << 32 | 7); /* 3: the host-less rule of big_commit() */
  }
  CHECK(is_good, "every other one dropped, the rest served");
}

/* Takes everything away again, so that the leak checker has the last word on what was retired. */
static void
emptied(void)
{
  char host[64];
  begin();
  for (unsigned i = 0; i < 3000; i++) {
    snprintf(host, sizeof host, "many%u.example", i);
    REQUIRE(atsk_commit_vhost_drop(0, ATSK_PLACE_EXACT, (struct atsk_str){host, strlen(host)}) >= ATSK_OK, "drop");
    enum atsk_status st = atsk_commit_service_drop((uint64_t)i << 32 | 7);
    REQUIRE(st == ATSK_OK || st == ATSK_E_UNKNOWN, "drop");
  }
  for (unsigned i = 0; i < 64; i++) {
    snprintf(host, sizeof host, "h%u.n%u.example", i % 16, i / 16);
    struct atsk_str name = {host, strlen(host)};
    for (uint16_t port = 0; port <= 8443; port = (uint16_t)(port + 8443)) {
      REQUIRE(atsk_commit_vhost_drop(port, ATSK_PLACE_EXACT, name) >= ATSK_OK, "drop");
      REQUIRE(atsk_commit_vhost_drop(port, ATSK_PLACE_WILDCARD, name) >= ATSK_OK, "drop");
      REQUIRE(atsk_commit_tls_drop(port, ATSK_PLACE_EXACT, name) >= ATSK_OK, "drop");
    }
  }
  REQUIRE(atsk_commit_vhost_drop(0, ATSK_PLACE_FALLBACK, STR("")) == ATSK_OK, "drop");
  REQUIRE(atsk_commit_vhost_drop(0, ATSK_PLACE_NO_HOST, STR("")) == ATSK_OK, "drop");
  REQUIRE(atsk_commit_tls_drop(0, ATSK_PLACE_FALLBACK, STR("")) == ATSK_OK, "drop");
  for (uint64_t id = 1; id <= 50; id++) {
    enum atsk_status st = atsk_commit_service_drop(id);
    REQUIRE(st == ATSK_OK || st == ATSK_E_UNKNOWN, "drop");
    st = atsk_commit_certificate_drop(id);
    REQUIRE(st == ATSK_OK || st == ATSK_E_UNKNOWN, "drop");
  }
  publish();
  const struct atsk_table *table = atsk_read_begin();
  CHECK(table != NULL && table->n_listeners == 0, "all dropped: no listener left");
  atsk_read_end();
}

int
main(void)
{
  random_seed();
  out_of_order();
  refused();
  visible_at_publish();
  without_memory();
  goes_on();
  many_ids();
  emptied();
  atsk_reclaim_barrier();
  return tap_end();
}
