/* The last good state: what is written is served again; whatever is wrong with a file gives it up as a whole and harms nothing; a table
 * that supersedes it leaves nothing of it. */
#include "certificates_made.h"
#include "default_numbers.h"
#include "table/match.h"
#include "staging.h"
#include "controller/state.h"
#include "tap.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static uint8_t options[ATSK_OPTIONS_DIGEST] = {1, 2, 3};
static struct atsk_settings settings;
static char dir[64] = "/tmp/atsk8s-state-XXXXXX";
static char path[96];
static char why[ATSK_STATE_WHY_MAX];

static struct atsk_str
str(const char *text)
{
  return (struct atsk_str){text, strlen(text)};
}

/* "service id/endpoints" that a host's "/" leads to, or "none". */
static const char *
route_of(const char *host)
{
  static char out[64];
  const struct atsk_table *table = atsk_read_begin();
  struct atsk_match match        = {.kind = ATSK_MATCH_NO_HOST};
  if (table != NULL) {
    match = atsk_match_request(table, 0, str(host), STR("/"));
  }
  snprintf(out, sizeof out, "none");
  if (match.kind == ATSK_MATCH_RULE) {
    struct atsk_service *service = atsk_match_service(&match, 0);
    snprintf(out, sizeof out, "%llu/%u", (unsigned long long)(atsk_service_id(service) & ~ATSK_STATE_ID_LOADED),
             atsk_service_size(service));
  }
  atsk_read_end();
  return out;
}

/* What the service that a host's "/" leads to says itself of failures. */
static uint32_t
failures_of(const char *host)
{
  struct atsk_endpoints_view view = {.max_failures = 1};
  const struct atsk_table *table  = atsk_read_begin();
  struct atsk_match match         = atsk_match_request(table, 0, str(host), STR("/"));
  REQUIRE(match.kind == ATSK_MATCH_RULE, "a rule for %s", host);
  atsk_service_view(atsk_match_service(&match, 0), &view);
  atsk_read_end();
  return view.max_failures;
}

static uint32_t
certificates_of(const char *host)
{
  const struct atsk_table *table       = atsk_read_begin();
  const struct atsk_tls_policy *policy = table == NULL ? NULL : atsk_match_sni(table, 0, str(host));
  uint32_t n                           = policy == NULL ? 0 : policy->n_certificates;
  struct atsk_certificate_der der      = {.chain = NULL};
  if (n > 0 && atsk_certificate_encode(policy->certificates[0], &der) != ATSK_OK) {
    n = 100; /* without material */
  }
  atsk_certificate_der_free(&der);
  atsk_read_end();
  return n;
}

static bool
save(bool with_certificates, struct atsk_state_saved *saved)
{
  enum atsk_status st = atsk_state_save(dir, options, &settings, with_certificates, 1234567890, saved, why);
  REQUIRE(st == ATSK_OK, "save: %d %s", st, why);
  return st == ATSK_OK;
}

/* The file's bytes, 8-aligned; freed by the caller. */
static uint8_t *
file_bytes(size_t *len)
{
  int fd = open(path, O_RDONLY);
  struct stat status;
  REQUIRE(fd >= 0 && fstat(fd, &status) == 0, "the file is there");
  uint8_t *bytes = malloc((size_t)status.st_size);
  *len           = (size_t)status.st_size;
  REQUIRE(read(fd, bytes, *len) == (ssize_t)*len, "and read");
  close(fd);
  return bytes;
}

static void
file_put(const uint8_t *bytes, size_t len)
{
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  REQUIRE(fd >= 0 && write(fd, bytes, len) == (ssize_t)len, "the file is put");
  close(fd);
}

static uint64_t
publish(void)
{
  uint64_t version = 0;
  REQUIRE(atsk_commit_publish(&version) == ATSK_OK, "publish");
  return version;
}

/* Makes the published table empty. */
static void
forget(void)
{
  REQUIRE(atsk_commit_begin() == ATSK_OK && atsk_commit_supersede() == ATSK_OK, "supersede by nothing");
  publish();
  const struct atsk_table *table = atsk_read_begin();
  REQUIRE(table->n_listeners == 0, "nothing is left");
  atsk_read_end();
}

static struct made pair;

/* Two hosts, a wildcard, rules without host, a fallback, names, certificates, another listener. */
static void
populate(void)
{
  REQUIRE(atsk_commit_begin() == ATSK_OK, "begin");
  REQUIRE(stage_service(1, 0, 3) == ATSK_OK && atsk_commit_service(2, (struct atsk_span){NULL, 0}, 0) == ATSK_OK, "services");
  REQUIRE(atsk_commit_service_name(3, STR("elsewhere.example"), 8443, 1000) == ATSK_OK, "name");
  uint64_t ids[2] = {7, 8};
  REQUIRE(atsk_commit_certificate(7, made_chain(&pair), made_key(&pair)) == ATSK_OK, "certificate");
  REQUIRE(atsk_commit_certificate_empty(8) == ATSK_OK, "empty certificate");
  REQUIRE(stage_vhost(0, ATSK_PLACE_EXACT, "a.example", 1, 100) == ATSK_OK, "a");
  REQUIRE(stage_vhost(0, ATSK_PLACE_EXACT, "b.a.example", 2, 101) == ATSK_OK, "b");
  REQUIRE(stage_vhost(0, ATSK_PLACE_WILDCARD, "w.example", 3, 102) == ATSK_OK, "wildcard");
  REQUIRE(stage_vhost(0, ATSK_PLACE_NO_HOST, "", 1, 103) == ATSK_OK, "no host");
  REQUIRE(stage_vhost(0, ATSK_PLACE_FALLBACK, "", 2, 104) == ATSK_OK, "fallback");
  REQUIRE(stage_vhost(8443, ATSK_PLACE_EXACT, "[::1]", 1, 105) == ATSK_OK, "another listener");
  REQUIRE(atsk_commit_tls(0, ATSK_PLACE_EXACT, STR("a.example"), ids, 2) == ATSK_OK, "policy");
  REQUIRE(atsk_commit_tls(0, ATSK_PLACE_WILDCARD, STR("a.example"), ids + 1, 1) == ATSK_OK, "wildcard policy");
  REQUIRE(atsk_commit_tls(0, ATSK_PLACE_FALLBACK, STR(""), ids, 1) == ATSK_OK, "default policy");
  publish();
}

static void
routes_check(const char *when)
{
  CHECK(strcmp(route_of("a.example"), "1/3") == 0, "%s: exact", when);
  CHECK(strcmp(route_of("b.a.example"), "2/0") == 0, "%s: without endpoints", when);
  CHECK(strcmp(route_of("x.w.example"), "3/1") == 0, "%s: wildcard, external name", when);
  CHECK(strcmp(route_of("never.test"), "1/3") == 0, "%s: no host", when);
  CHECK(failures_of("a.example") == ATSK_NONE && failures_of("b.a.example") == 0 && failures_of("x.w.example") == 1000,
        "%s: what services say themselves of failures", when);
}

static void
comes_back(bool with_certificates)
{
  struct atsk_state_saved saved;
  struct atsk_state_loaded loaded;
  const char *when = with_certificates ? "with certificates" : "without certificates";
  populate();
  save(with_certificates, &saved);
  CHECK(saved.version == atsk_table_version(), "%s: the version written", when);
  struct stat status;
  CHECK(stat(path, &status) == 0 && (status.st_mode & 0777) == 0600, "%s: mode 0600", when);
  CHECK((uint64_t)status.st_size == saved.size_bytes, "%s: the size said", when);
  size_t len;
  uint8_t *bytes = file_bytes(&len);
  CHECK((memmem(bytes, len, pair.key_der, (size_t)pair.key_len) != NULL) == with_certificates, "%s: the key is in it if asked for",
        when);
  free(bytes);
  forget();
  CHECK(strcmp(route_of("a.example"), "none") == 0, "%s: forgotten", when);
  memset(&loaded, 0, sizeof loaded);
  CHECK(atsk_state_stage(dir, options, &loaded, why) == ATSK_OK, "%s: staged %s", when, why);
  CHECK(strcmp(route_of("a.example"), "none") == 0, "%s: not published yet", when);
  publish();
  routes_check(when);
  CHECK(loaded.n_vhosts == 6 && loaded.written_s == 1234567890, "%s: what it says of itself", when);
  CHECK(memcmp(&loaded.settings, &settings, sizeof settings) == 0, "%s: every setting", when);
  CHECK(certificates_of("a.example") == (with_certificates ? 2 : 0), "%s: policy", when);
  CHECK(certificates_of("x.a.example") == (with_certificates ? 100 : 0), "%s: a certificate without material", when);
  CHECK(certificates_of("") == (with_certificates ? 1 : 0), "%s: default policy", when);
  /* And once more: what was loaded is superseded by the same, under the ids that a controller gives. */
  REQUIRE(atsk_commit_begin() == ATSK_OK, "begin");
  REQUIRE(stage_service(1, 0, 5) == ATSK_OK && stage_vhost(0, ATSK_PLACE_EXACT, "a.example", 1, 1) == ATSK_OK, "live");
  CHECK(atsk_commit_supersede() == ATSK_OK && atsk_commit_supersede() == ATSK_OK, "%s: superseding twice is once", when);
  atsk_commit_abort();
  routes_check("aborted");
  REQUIRE(atsk_commit_begin() == ATSK_OK, "begin");
  REQUIRE(stage_service(1, 0, 5) == ATSK_OK && stage_vhost(0, ATSK_PLACE_EXACT, "a.example", 1, 1) == ATSK_OK, "live");
  REQUIRE(atsk_commit_supersede() == ATSK_OK, "supersede");
  publish();
  CHECK(strcmp(route_of("a.example"), "1/5") == 0 && strcmp(route_of("b.a.example"), "none") == 0, "%s: superseded", when);
  CHECK(strcmp(route_of("never.test"), "none") == 0 && certificates_of("") == 0, "%s: nothing of it is left", when);
  forget();
}

/* Stages `len` bytes of `bytes` in memory of exactly that size, so that a step outside is seen. */
static enum atsk_status
stage_copy(const uint8_t *bytes, size_t len, bool checksum)
{
  struct atsk_state_loaded *loaded = malloc(sizeof *loaded);
  uint8_t *copy                    = malloc(len > 0 ? len : 1);
  memcpy(copy, bytes, len);
  why[0]              = '\0';
  enum atsk_status st = atsk_state_stage_bytes(copy, len, options, checksum, loaded, why);
  if (st == ATSK_OK) {
    atsk_commit_abort();
  } else {
    REQUIRE(why[0] != '\0', "a reason is given");
  }
  free(copy);
  free(loaded);
  return st;
}

static void
hostile(void)
{
  struct atsk_state_saved saved;
  size_t len, n_taken = 0;
  populate();
  save(true, &saved);
  forget();
  uint8_t *bytes = file_bytes(&len);
  CHECK(stage_copy(bytes, len, true) == ATSK_OK, "the file as it is");
  for (size_t i = 0; i < len; i++) {
    REQUIRE(stage_copy(bytes, i, true) < 0, "cut at %zu", i);
    REQUIRE(stage_copy(bytes, i, false) < 0, "cut at %zu, no checksum", i);
  }
  CHECK(true, "cut at every one of %zu lengths", len);
  struct atsk_state_header *header = (struct atsk_state_header *)(void *)bytes;
  for (size_t i = len - len % 8; i >= 8; i -= 8) { /* as above, but saying its own length */
    header->total_size = i;
    n_taken += stage_copy(bytes, i, false) == ATSK_OK;
  }
  CHECK(n_taken == 1, "cut where it says that it ends: the whole one alone is taken");
  header->total_size = len;
  for (size_t i = 0; i < len * 8; i++) {
    bytes[i / 8] ^= (uint8_t)(1u << i % 8);
    REQUIRE(stage_copy(bytes, len, true) < 0, "bit %zu", i);
    if (i % 3 == 0) {
      (void)stage_copy(bytes, len, false); /* any answer: it must not step outside, and leave no commit open */
    }
    bytes[i / 8] ^= (uint8_t)(1u << i % 8);
  }
  CHECK(true, "every bit turned");
  for (unsigned round = 0; round < 3000; round++) {
    uint8_t *copy = malloc(len);
    memcpy(copy, bytes, len);
    for (unsigned i = 0; i < 1 + round % 7; i++) {
      static const uint8_t values[]                                         = {0, 1, 7, 8, 0x7f, 0x80, 0xfe, 0xff};
      copy[sizeof *header + random_below((uint32_t)(len - sizeof *header))] = values[random_below(sizeof values)];
    }
    (void)stage_copy(copy, len, false);
    free(copy);
  }
  CHECK(atsk_table_version() > 0 && strcmp(route_of("a.example"), "none") == 0, "none of it was ever published");
  uint8_t others[ATSK_OPTIONS_DIGEST] = {9};
  struct atsk_state_loaded loaded;
  CHECK(atsk_state_stage(dir, others, &loaded, why) < 0 && strstr(why, "other options") != NULL, "%s", why);
  header->version++;
  file_put(bytes, len);
  CHECK(atsk_state_stage(dir, options, &loaded, why) < 0 && strstr(why, "another version") != NULL, "%s", why);
  header->version--;
  file_put(bytes, len - 1);
  CHECK(atsk_state_stage(dir, options, &loaded, why) < 0 && strstr(why, "cut short") != NULL, "%s", why);
  bytes[len - 1] ^= 1;
  file_put(bytes, len);
  CHECK(atsk_state_stage(dir, options, &loaded, why) < 0 && strstr(why, "corrupt") != NULL, "%s", why);
  bytes[len - 1] ^= 1;
  file_put(bytes, len);
  CHECK(chmod(path, 0622) == 0 && atsk_state_stage(dir, options, &loaded, why) == ATSK_E_IO, "others could write it: %s", why);
  free(bytes);
}

static void
file_system(void)
{
  struct atsk_state_saved saved;
  struct atsk_state_loaded loaded;
  unlink(path);
  CHECK(atsk_state_stage(dir, options, &loaded, why) == ATSK_MISS, "no file: %s", why);
  CHECK(atsk_state_stage("/nonexistent/dir", options, &loaded, why) == ATSK_E_IO, "no directory: %s", why);
  CHECK(mkfifo(path, 0600) == 0 && atsk_state_stage(dir, options, &loaded, why) == ATSK_E_IO, "a FIFO: %s", why);
  unlink(path);
  CHECK(mkdir(path, 0700) == 0 && atsk_state_stage(dir, options, &loaded, why) == ATSK_E_IO, "a directory: %s", why);
  populate();
  CHECK(atsk_state_save(dir, options, &settings, false, 1, &saved, why) == ATSK_E_IO, "cannot be renamed: %s", why);
  char aside[sizeof path + 16];
  snprintf(aside, sizeof aside, "%s/.table.state.new", dir);
  CHECK(access(aside, F_OK) != 0, "nothing is left beside it");
  rmdir(path);
  CHECK(atsk_state_save("/nonexistent/dir", options, &settings, false, 1, &saved, why) == ATSK_E_IO, "no directory: %s", why);
  CHECK(atsk_state_save("/dev/full", options, &settings, false, 1, &saved, why) == ATSK_E_IO, "not a directory: %s", why);
  file_put((const uint8_t *)"half", 4);
  CHECK(rename(path, aside) == 0 && save(false, &saved) && access(aside, F_OK) != 0, "one left by a killed process goes");
  CHECK(save(false, &saved) && atsk_state_stage(dir, options, &loaded, why) == ATSK_OK, "written over: %s", why);
  atsk_commit_abort();
}

static void
without_memory(void)
{
  struct atsk_state_saved saved;
  struct atsk_state_loaded loaded;
  unsigned n_failed = 0;
  save(true, &saved);
  for (uint64_t nth = 1;; nth++, n_failed++) {
    fail_allocation(nth);
    enum atsk_status st = atsk_state_stage(dir, options, &loaded, why);
    fail_allocation(0);
    if (st == ATSK_OK) {
      break;
    }
    REQUIRE(st == ATSK_E_NOMEM, "allocation %llu: %d %s", (unsigned long long)nth, st, why);
  }
  CHECK(n_failed > 10, "staging: %u allocations failed in turn", n_failed);
  for (uint64_t nth = 1, n = 0;; nth++, n++) {
    atsk_commit_abort();
    REQUIRE(atsk_commit_begin() == ATSK_OK, "begin");
    fail_allocation(nth);
    enum atsk_status st = atsk_commit_supersede();
    fail_allocation(0);
    if (st == ATSK_OK) {
      CHECK(n > 3, "superseding: %llu allocations failed in turn", (unsigned long long)n);
      break;
    }
    REQUIRE(st == ATSK_E_NOMEM, "supersede: %d", st);
    atsk_commit_abort();
    REQUIRE(strcmp(route_of("a.example"), "1/3") == 0, "and abort undoes it");
  }
  atsk_commit_abort();
  for (uint64_t nth = 1;; nth++) {
    fail_allocation(nth);
    enum atsk_status st = atsk_state_save(dir, options, &settings, true, 1, &saved, why);
    fail_allocation(0);
    if (st == ATSK_OK) {
      CHECK(nth > 1, "saving: %llu allocations failed in turn", (unsigned long long)nth - 1);
      break;
    }
    REQUIRE(st == ATSK_E_NOMEM, "save: %d", st);
  }
}

/* Many hosts: what is written grows over its first room, and every one comes back. */
static void
large(void)
{
  struct atsk_state_saved saved;
  struct atsk_state_loaded loaded;
  uint32_t n = (uint32_t)setting("ATSK8S_STATE_HOSTS", 20000);
  char host[64];
  forget();
  REQUIRE(atsk_commit_begin() == ATSK_OK, "begin");
  for (uint32_t i = 0; i < n; i++) {
    REQUIRE(i % 64 != 0 || stage_service(1 + i / 64, i % 1000, 3) == ATSK_OK, "service");
    snprintf(host, sizeof host, "h%u.n%u.example", i, i % 97);
    REQUIRE(stage_vhost(0, ATSK_PLACE_EXACT, host, 1 + i / 64, 1 + i) == ATSK_OK, "host");
  }
  publish();
  save(false, &saved);
  forget();
  CHECK(atsk_state_stage(dir, options, &loaded, why) == ATSK_OK && loaded.n_vhosts == n, "%u hosts are staged", n);
  publish();
  uint32_t n_right = 0;
  for (uint32_t i = 0; i < n; i++) {
    char want[32];
    snprintf(host, sizeof host, "h%u.n%u.example", i, i % 97);
    snprintf(want, sizeof want, "%u/3", 1 + i / 64);
    n_right += strcmp(route_of(host), want) == 0;
  }
  CHECK(n_right == n, "%u of them are as they were", n_right);
  forget();
}

int
main(void)
{
  random_seed();
  REQUIRE(mkdtemp(dir) != NULL, "a directory");
  snprintf(path, sizeof path, "%s/%s", dir, ATSK_STATE_NAME);
  pair = made_certificate("a.example", EVP_EC_gen("P-256"), EVP_sha256(), NULL);
  /* Expired: it comes back all the same. */
  X509_gmtime_adj(X509_getm_notAfter(pair.certificate), -60);
  X509_sign(pair.certificate, pair.key, EVP_sha256());
  OPENSSL_free(pair.certificate_der);
  pair.certificate_der = NULL;
  pair.certificate_len = i2d_X509(pair.certificate, &pair.certificate_der);
  struct atsk_state_saved saved;
  CHECK(atsk_state_save(dir, options, &settings, false, 1, &saved, why) == ATSK_MISS, "nothing is published: nothing is written");
  /* Every byte that a setting may have: one that the file forgets does not come back. */
  settings = (struct atsk_settings){
    .health_path          = "/healthz",
    .health_path_len      = 8,
    .trusted              = {{.addr = {10, 1}, .family = 4, .bits = 16}, {.addr = {0xfd}, .family = 6, .bits = 8}},
    .n_trusted            = 2,
    .cache                = true,
    .reject_encoded_slash = true,
    .allow_loopback_names = true,
  };
  REQUIRE(atsk_defaults_of(&sane_numbers, &settings.defaults) == ATSK_OK, "defaults");
  comes_back(false);
  comes_back(true);
  hostile();
  file_system();
  without_memory();
  large();
  atsk_reclaim_barrier();
  made_free(&pair);
  unlink(path);
  rmdir(dir);
  return tap_end();
}
