/* From host and path to rule: exact, wildcard, host-less, fallback, listeners; path misses; weights. */
#include "table/match.h"
#include "staging.h"
#include "tap.h"

/* Which service serves host and path; 0: none.  *kind is how it was decided. */
static uint64_t
served(uint16_t port, const char *host, const char *path, enum atsk_match_kind *kind)
{
  const struct atsk_table *table = atsk_read_begin();
  struct atsk_match match =
    atsk_match_request(table, port, (struct atsk_str){host, strlen(host)}, (struct atsk_str){path, strlen(path)});
  struct atsk_service *service = match.kind == ATSK_MATCH_RULE ? atsk_match_service(&match, 0) : NULL;
  uint64_t id                  = service == NULL ? 0 : atsk_service_id(service);
  atsk_read_end();
  *kind = match.kind;
  return id;
}

static void
serves(uint16_t port, const char *host, const char *path, uint64_t service, enum atsk_match_kind expected)
{
  enum atsk_match_kind kind;
  uint64_t id = served(port, host, path, &kind);
  CHECK(id == service && kind == expected, "port %u host \"%s\" path \"%s\": service %llu kind %d", port, host, path,
        (unsigned long long)service, (int)expected);
}

/* A virtual host with the one exact path "/known" to `service`. */
static void
place_known(enum atsk_vhost_place place, const char *host, uint64_t service, bool has_default)
{
  const struct blob_path path = {"/known", true, 0};
  const uint64_t services[]   = {service, service + 100};
  const uint64_t routes[]     = {1, 2};
  struct atsk_span blob       = blob_build(&path, 1, has_default ? 1 : ATSK_NONE, 2);
  REQUIRE(atsk_commit_vhost(0, place, (struct atsk_str){host, strlen(host)}, blob, services, 2, routes, has_default ? 2 : 1) ==
            ATSK_OK,
          "place %s", host);
  free((void *)(uintptr_t)blob.ptr);
}

static void
publish(void)
{
  uint64_t version;
  REQUIRE(atsk_commit_publish(&version) == ATSK_OK, "publish");
}

static void
weights(void)
{
  static const uint32_t weight[] = {1, 3, 6};
  const struct blob_path two[]   = {{"/", false, 0}, {"/b", false, 1}, {"/c", false, 2}};
  const uint64_t services[] = {1, 2, 3}, routes[] = {1, 2, 3};
  struct atsk_span blob              = blob_build(two, 3, ATSK_NONE, 3);
  struct atsk_blob_header *header    = (void *)(uintptr_t)blob.ptr;
  uint8_t *bytes                     = (uint8_t *)(uintptr_t)blob.ptr;
  struct atsk_blob_rule *rules       = (void *)(bytes + header->rules_off);
  struct atsk_blob_backend *backends = (void *)(bytes + header->backends_off);
  rules[0].n_backends                = 3;
  for (uint32_t i = 0; i < 3; i++) {
    backends[i].weight = weight[i];
  }
  REQUIRE(atsk_commit_begin() == ATSK_OK, "begin");
  REQUIRE(atsk_commit_vhost(0, ATSK_PLACE_EXACT, STR("weights.example"), blob, services, 3, routes, 3) == ATSK_OK, "weights");
  publish();
  free(bytes);
  unsigned n[4]                  = {0};
  const struct atsk_table *table = atsk_read_begin();
  struct atsk_match match        = atsk_match_request(table, 0, STR("weights.example"), STR("/x"));
  for (uint64_t pick = 0; pick < 1000; pick++) {
    n[atsk_service_id(atsk_match_service(&match, pick)) & 3]++;
  }
  REQUIRE(atsk_match_service(&match, UINT64_MAX) != NULL, "the last pick");
  atsk_read_end();
  CHECK(n[1] == 100 && n[2] == 300 && n[3] == 600, "weights 1:3:6 give %u %u %u of 1000", n[1], n[2], n[3]);
}

int
main(void)
{
  enum atsk_match_kind kind;
  CHECK(served(80, "a.example", "/", &kind) == 0 && kind == ATSK_MATCH_NO_HOST, "no table: no host");
  REQUIRE(atsk_commit_begin() == ATSK_OK, "begin");
  for (uint64_t id = 1; id <= 7; id++) {
    REQUIRE(stage_service(id, (uint32_t)id, 2) == ATSK_OK && stage_service(id + 100, (uint32_t)id, 2) == ATSK_OK, "service");
  }
  place_known(ATSK_PLACE_EXACT, "a.example", 1, false);
  place_known(ATSK_PLACE_WILDCARD, "example", 2, false);
  place_known(ATSK_PLACE_EXACT, "default.example", 5, true);
  publish();
  serves(80, "a.example", "/known", 1, ATSK_MATCH_RULE);
  serves(80, "b.example", "/known", 2, ATSK_MATCH_RULE);
  serves(80, "a.example", "/unknown", 0, ATSK_MATCH_NO_PATH);
  serves(80, "example", "/known", 0, ATSK_MATCH_NO_HOST);
  serves(80, "x.b.example", "/known", 0, ATSK_MATCH_NO_HOST);
  serves(80, "other.test", "/known", 0, ATSK_MATCH_NO_HOST);
  serves(80, "", "/known", 0, ATSK_MATCH_NO_HOST);
  serves(80, "default.example", "/known", 5, ATSK_MATCH_RULE);
  serves(80, "default.example", "/unknown", 105, ATSK_MATCH_RULE);

  REQUIRE(atsk_commit_begin() == ATSK_OK, "begin");
  place_known(ATSK_PLACE_NO_HOST, "", 3, false);
  publish();
  serves(80, "other.test", "/known", 3, ATSK_MATCH_RULE);
  serves(80, "other.test", "/unknown", 0, ATSK_MATCH_NO_PATH);
  serves(80, "a.example", "/unknown", 0, ATSK_MATCH_NO_PATH);

  REQUIRE(atsk_commit_begin() == ATSK_OK, "begin");
  REQUIRE(stage_vhost(0, ATSK_PLACE_FALLBACK, "", 4, 9) == ATSK_OK, "fallback");
  REQUIRE(stage_vhost(8443, ATSK_PLACE_EXACT, "a.example", 6, 10) == ATSK_OK, "another listener");
  publish();
  serves(80, "a.example", "/unknown", 4, ATSK_MATCH_RULE);
  serves(80, "b.example", "/unknown", 4, ATSK_MATCH_RULE);
  serves(80, "other.test", "/known", 3, ATSK_MATCH_RULE);
  serves(80, "other.test", "/unknown", 4, ATSK_MATCH_RULE);
  serves(8443, "a.example", "/known", 6, ATSK_MATCH_RULE);
  serves(8443, "b.example", "/known", 0, ATSK_MATCH_NO_HOST);

  REQUIRE(atsk_commit_begin() == ATSK_OK, "begin");
  REQUIRE(atsk_commit_vhost_drop(8443, ATSK_PLACE_EXACT, STR("a.example")) == ATSK_OK, "drop");
  CHECK(atsk_commit_vhost_drop(8443, ATSK_PLACE_EXACT, STR("a.example")) == ATSK_MISS, "dropped twice: a miss");
  publish();
  serves(8443, "a.example", "/known", 1, ATSK_MATCH_RULE);

  REQUIRE(atsk_commit_begin() == ATSK_OK, "begin");
  REQUIRE(atsk_commit_certificate_empty(1) == ATSK_OK && atsk_commit_certificate_empty(2) == ATSK_OK &&
            atsk_commit_certificate_empty(3) == ATSK_OK,
          "certificates");
  REQUIRE(atsk_commit_tls(0, ATSK_PLACE_EXACT, STR("tls.example"), (const uint64_t[]){1}, 1) == ATSK_OK, "tls");
  REQUIRE(atsk_commit_tls(0, ATSK_PLACE_WILDCARD, STR("example"), (const uint64_t[]){2}, 1) == ATSK_OK, "tls");
  publish();
  const struct atsk_table *table       = atsk_read_begin();
  const struct atsk_tls_policy *policy = atsk_match_sni(table, 443, STR("tls.example"));
  CHECK(policy != NULL && atsk_certificate_id(policy->certificates[0]) == 1, "SNI: exact");
  policy = atsk_match_sni(table, 443, STR("a.example"));
  CHECK(policy != NULL && atsk_certificate_id(policy->certificates[0]) == 2, "SNI: wildcard beside an exact virtual host");
  CHECK(atsk_match_sni(table, 443, STR("x.y.test")) == NULL && atsk_match_sni(table, 443, STR("")) == NULL,
        "SNI: none, no default");
  atsk_read_end();
  REQUIRE(atsk_commit_begin() == ATSK_OK, "begin");
  REQUIRE(atsk_commit_tls(0, ATSK_PLACE_FALLBACK, STR(""), (const uint64_t[]){3, 2}, 2) == ATSK_OK, "default");
  publish();
  table  = atsk_read_begin();
  policy = atsk_match_sni(table, 443, STR(""));
  CHECK(policy != NULL && policy->n_certificates == 2 && atsk_certificate_id(policy->certificates[0]) == 3, "SNI: default");
  atsk_read_end();
  serves(80, "tls.example", "/known", 2, ATSK_MATCH_RULE);
  weights();
  atsk_reclaim_barrier();
  return tap_end();
}
