/* Bytes as a virtual host's blob: what validation accepts can be matched against and read, every part of it, without a step outside.
 * Input: path and blob, as two_parts.h has them. */
#include "blob/policies.h"
#include "replay.h"
#include "blob/vhost.h"
#include "two_parts.h"

static volatile uint32_t sink; /* what was read must not be optimised away */

static void
string_read(struct atsk_span blob, struct atsk_blob_str s)
{
  struct atsk_str view = atsk_blob_str_view(blob, s);
  for (size_t i = 0; i < view.len; i++) {
    sink += (unsigned char)view.ptr[i];
  }
}

/* Every policy of a rule, as far as it leads. */
static void
policies_read(struct atsk_span blob, const struct atsk_blob_rule *rule)
{
  struct atsk_policies p;
  atsk_policies_view(blob, rule, &p);
  if (p.balance != NULL) {
    FUZZ_REQUIRE(p.balance->algorithm <= ATSK_BALANCE_HASH && p.balance->load_percent <= ATSK_LOAD_PERCENT_MAX);
    string_read(blob, p.balance->name);
  }
  if (p.affinity != NULL) {
    struct atsk_str attributes = atsk_blob_str_view(blob, p.affinity->attributes);
    FUZZ_REQUIRE(p.affinity->name.len > 0 && p.affinity->name.len <= ATSK_COOKIE_NAME_MAX);
    string_read(blob, p.affinity->name);
    for (size_t i = 0; i < attributes.len; i++) {
      FUZZ_REQUIRE(attributes.ptr[i] >= ' ' && attributes.ptr[i] <= '~'); /* they go into a header */
    }
  }
  if (p.retry != NULL) {
    FUZZ_REQUIRE(p.retry->tries <= ATSK_RETRY_TRIES_MAX && p.retry->n_statuses <= ATSK_RETRY_STATUSES_MAX);
  }
  if (p.timeouts != NULL) {
    FUZZ_REQUIRE(p.timeouts->connect_ms > 0);
  }
  if (p.limits != NULL) {
    FUZZ_REQUIRE(p.limits->scope < atsk_blob_header_view(blob)->n_routes);
    FUZZ_REQUIRE(p.limits->exempt.len == p.limits->n_exempt * ATSK_EXEMPT_SIZE);
    string_read(blob, p.limits->exempt);
  }
  sink += p.body != NULL ? (uint32_t)p.body->max_bytes : 0;
}

static void
rule_read(struct atsk_span blob, uint32_t index)
{
  const struct atsk_blob_rule *rule = atsk_blob_rule_at(blob, index);
  FUZZ_REQUIRE(rule->route < atsk_blob_header_view(blob)->n_routes);
  for (uint32_t i = 0; i < rule->n_backends && i < 1000; i++) {
    FUZZ_REQUIRE(atsk_blob_backend_at(blob, rule->first_backend + i)->service < atsk_blob_header_view(blob)->n_services);
  }
  policies_read(blob, rule);
  string_read(blob, rule->object);
  string_read(blob, rule->path);
}

static void
match_read(struct atsk_span blob, struct atsk_str path)
{
  uint32_t rule = ATSK_NONE;
  if (atsk_blob_match(blob, path, &rule) == ATSK_OK) {
    FUZZ_REQUIRE(rule < atsk_blob_header_view(blob)->n_rules);
    rule_read(blob, rule);
  }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  struct two_parts parts;
  if (!two_parts_take(data, size, &parts)) {
    return 0;
  }
  const struct atsk_span blob = {(const uint8_t *)parts.second, parts.second_len};
  if (atsk_blob_validate(blob) == ATSK_OK) {
    match_read(blob, (struct atsk_str){parts.first, parts.first_len});
    match_read(blob, (struct atsk_str){"/", 1});
    const struct atsk_blob_header *header = atsk_blob_header_view(blob);
    for (uint32_t i = 0; i < header->n_rules && i < 100; i++) { /* and ask for what it says it serves */
      rule_read(blob, i);
      match_read(blob, atsk_blob_str_view(blob, atsk_blob_rule_at(blob, i)->path));
    }
  }
  two_parts_free(&parts);
  return 0;
}
