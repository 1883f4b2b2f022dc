/* Bytes as a virtual host's blob: what validation accepts can be matched against and read, every part of it, without a step outside.
 * Input: one byte n, n bytes of path, the rest is the blob. */
#include "blob/policies.h"
#include "replay.h"
#include "blob/vhost.h"

#include <stdlib.h>
#include <string.h>

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
  size_t path_len = size > 0 && data[0] < size ? data[0] : 0;
  if (size == 0) {
    return 0;
  }
  size_t blob_len = size - 1 - path_len;
  uint8_t *bytes  = malloc(blob_len > 0 ? blob_len : 1); /* exactly as long: a read past the end is seen */
  char *path      = malloc(path_len > 0 ? path_len : 1);
  memcpy(path, data + 1, path_len);
  memcpy(bytes, data + 1 + path_len, blob_len);
  struct atsk_span blob = {bytes, blob_len};
  if (atsk_blob_validate(blob) == ATSK_OK) {
    match_read(blob, (struct atsk_str){path, path_len});
    match_read(blob, (struct atsk_str){"/", 1});
    const struct atsk_blob_header *header = atsk_blob_header_view(blob);
    for (uint32_t i = 0; i < header->n_rules && i < 100; i++) { /* and ask for what it says it serves */
      rule_read(blob, i);
      match_read(blob, atsk_blob_str_view(blob, atsk_blob_rule_at(blob, i)->path));
    }
  }
  free(bytes);
  free(path);
  return 0;
}
