/* Policies of a blob: views of good ones, every field of every record spoilt in turn, random damage under the sanitizers. */
#include "blob/policies.h"
#include "policy_blobs.h"
#include "tap.h"
#include "blob/vhost.h"

#include <stddef.h>

static const struct atsk_blob_header *
header_of(struct atsk_span blob)
{
  return (const void *)blob.ptr;
}

static uint32_t
row_at(struct atsk_span blob, uint32_t kind)
{
  return header_of(blob)->policies_off + (kind - 1) * (uint32_t)sizeof(struct atsk_blob_policy);
}

static uint32_t
record_at(struct atsk_span blob, uint32_t kind)
{
  return ((const struct atsk_blob_policy *)(const void *)(blob.ptr + row_at(blob, kind)))->off;
}

static void
views(void)
{
  struct atsk_span blob = blob_of_all_policies();
  struct atsk_policies p;
  CHECK(atsk_blob_validate(blob) == ATSK_OK, "a blob with every policy is valid");
  const struct atsk_blob_rule *rule = atsk_blob_rule_at(blob, 0);
  atsk_policies_view(blob, rule, &p);
  CHECK(p.balance != NULL && p.balance->load_percent == 125 && p.affinity != NULL && p.affinity->secure == ATSK_SECURE_ALWAYS &&
          p.retry != NULL && p.retry->statuses[1] == 503 && p.timeouts != NULL && p.timeouts->connect_ms == 100 &&
          p.limits != NULL && p.limits->client_burst == 50 && p.body != NULL && p.body->max_bytes == 1 << 20 && p.snippet != NULL &&
          p.snippet->id == 1,
        "each is found by its kind");
  struct atsk_str name = atsk_blob_str_view(blob, p.affinity->name);
  CHECK(name.len == 10 && memcmp(name.ptr, "JSESSIONID", 10) == 0, "with its strings");
  struct atsk_blob_rule some = *rule;
  some.first_policy          = 2;
  some.n_policies            = 2;
  atsk_policies_view(blob, &some, &p);
  CHECK(p.balance == NULL && p.retry != NULL && p.timeouts != NULL && p.limits == NULL, "a run has what it has");
  some.n_policies = 0;
  atsk_policies_view(blob, &some, &p);
  CHECK(p.retry == NULL && p.timeouts == NULL && p.body == NULL, "none: nothing");
  free((void *)(uintptr_t)blob.ptr);
}

/* Writes `size` bytes over a good blob at `off`, and says what validation makes of it. */
static void
spoilt_bytes(size_t off, const void *bytes, size_t size, enum atsk_status expected, const char *what)
{
  struct atsk_span blob = blob_of_all_policies();
  memcpy((uint8_t *)(uintptr_t)blob.ptr + off, bytes, size);
  enum atsk_status st = atsk_blob_validate(blob);
  CHECK(st == expected, "%s: %d (got %d)", what, (int)expected, (int)st);
  free((void *)(uintptr_t)blob.ptr);
}

static void
spoilt(size_t off, uint32_t value, enum atsk_status expected, const char *what)
{
  char text[128];
  (void)snprintf(text, sizeof text, "%s = %u", what, value);
  spoilt_bytes(off, &value, sizeof value, expected, text);
}

#define FIELD(record, type, field) (record) + offsetof(struct type, field)

static void
rows(struct atsk_span good)
{
  const size_t row = row_at(good, ATSK_POLICY_RETRY), rule = header_of(good)->rules_off, body = row_at(good, ATSK_POLICY_BODY);
  const uint32_t data = record_at(good, ATSK_POLICY_BALANCE), strings = header_of(good)->strings_off;
  spoilt(FIELD(row, atsk_blob_policy, kind), 0, ATSK_E_LAYOUT, "kind");
  spoilt(FIELD(row, atsk_blob_policy, kind), 8, ATSK_E_LAYOUT, "kind of a later version");
  spoilt(FIELD(row, atsk_blob_policy, size), 24, ATSK_E_LAYOUT, "size of another kind");
  spoilt(FIELD(row, atsk_blob_policy, reserved), 1, ATSK_E_LAYOUT, "row reserved");
  spoilt(FIELD(row, atsk_blob_policy, off), data + 4, ATSK_E_LAYOUT, "off, not aligned");
  spoilt(FIELD(row, atsk_blob_policy, off), data - 8, ATSK_E_TRUNCATED, "off, in the rows");
  spoilt(FIELD(row, atsk_blob_policy, off), 0, ATSK_E_TRUNCATED, "off, in the header");
  spoilt(FIELD(row, atsk_blob_policy, off), strings - 8, ATSK_E_TRUNCATED, "off, reaching into the strings");
  spoilt(FIELD(row, atsk_blob_policy, off), strings, ATSK_E_TRUNCATED, "off, in the strings");
  spoilt(FIELD(row, atsk_blob_policy, off), UINT32_MAX - 7, ATSK_E_TRUNCATED, "off, anywhere");
  spoilt(FIELD(rule, atsk_blob_rule, n_policies), 8, ATSK_E_TRUNCATED, "a rule's n_policies");
  spoilt(FIELD(rule, atsk_blob_rule, n_policies), UINT32_MAX, ATSK_E_TRUNCATED, "a rule's n_policies");
  spoilt(FIELD(rule, atsk_blob_rule, n_policies), 0, ATSK_OK, "a rule's n_policies");
  spoilt(FIELD(rule, atsk_blob_rule, first_policy), 1, ATSK_E_TRUNCATED, "a rule's first_policy");
  spoilt(FIELD(rule, atsk_blob_rule, first_policy), UINT32_MAX, ATSK_E_TRUNCATED, "a rule's first_policy");
  spoilt(offsetof(struct atsk_blob_header, n_policies), 6, ATSK_E_TRUNCATED, "n_policies below what a rule has");
  spoilt(offsetof(struct atsk_blob_header, n_policies), 8, ATSK_E_TRUNCATED, "n_policies, the first records being no rows");
  spoilt(offsetof(struct atsk_blob_header, strings_off), header_of(good)->policies_off, ATSK_E_LAYOUT, "strings_off");
  struct atsk_blob_policy again;
  memcpy(&again, good.ptr + row, sizeof again);
  spoilt_bytes(body, &again, sizeof again, ATSK_E_ORDER, "kinds out of order");
  spoilt_bytes(row + sizeof again, &again, sizeof again, ATSK_E_ORDER, "a kind twice");
}

static void
snippet(struct atsk_span good)
{
  const size_t s     = record_at(good, ATSK_POLICY_SNIPPET) + offsetof(struct atsk_policy_snippet, text);
  const uint32_t end = header_of(good)->strings_size;
  spoilt(FIELD(s, atsk_blob_str, off), end + 1, ATSK_E_TRUNCATED, "a snippet's off");
  spoilt(FIELD(s, atsk_blob_str, len), UINT32_MAX, ATSK_E_TRUNCATED, "a snippet's len");
  spoilt(FIELD(s, atsk_blob_str, len), 0, ATSK_E_RANGE, "a snippet's len, none");
}

static void
balance_and_affinity(struct atsk_span good)
{
  const size_t b = record_at(good, ATSK_POLICY_BALANCE), a = record_at(good, ATSK_POLICY_AFFINITY);
  const size_t strings = header_of(good)->strings_off,
               text    = strings + header_of(good)->strings_size - BLOB_TEXT_LEN - BLOB_EXEMPT_LEN;
  const uint32_t end   = header_of(good)->strings_size;
  spoilt(FIELD(b, atsk_policy_balance, algorithm), 5, ATSK_E_RANGE, "algorithm");
  spoilt(FIELD(b, atsk_policy_balance, algorithm), ATSK_BALANCE_RANDOM, ATSK_E_RANGE, "algorithm, without hash");
  spoilt(FIELD(b, atsk_policy_balance, hash_source), 5, ATSK_E_RANGE, "hash_source");
  spoilt(FIELD(b, atsk_policy_balance, hash_source), ATSK_HASH_NONE, ATSK_E_RANGE, "hash_source");
  spoilt(FIELD(b, atsk_policy_balance, hash_source), ATSK_HASH_URI, ATSK_E_LAYOUT, "a name that says nothing, hash_source");
  spoilt(FIELD(b, atsk_policy_balance, name.off), end, ATSK_E_TRUNCATED, "header name.off");
  spoilt(FIELD(b, atsk_policy_balance, name.off), UINT32_MAX, ATSK_E_TRUNCATED, "header name.off");
  spoilt(FIELD(b, atsk_policy_balance, name.len), UINT32_MAX, ATSK_E_TRUNCATED, "header name.len");
  spoilt(FIELD(b, atsk_policy_balance, name.len), 0, ATSK_E_RANGE, "header name.len");
  spoilt(FIELD(b, atsk_policy_balance, name.len), 10, ATSK_E_RANGE, "upper case in a header name, name.len");
  spoilt(FIELD(b, atsk_policy_balance, load_percent), 100, ATSK_E_RANGE, "load_percent");
  spoilt(FIELD(b, atsk_policy_balance, load_percent), 1001, ATSK_E_RANGE, "load_percent");
  spoilt(FIELD(b, atsk_policy_balance, load_percent), 1000, ATSK_OK, "load_percent");
  spoilt(FIELD(b, atsk_policy_balance, load_percent), 0, ATSK_OK, "load_percent");
  spoilt(FIELD(b, atsk_policy_balance, reserved), 1, ATSK_E_LAYOUT, "reserved of balance");
  spoilt(FIELD(a, atsk_policy_affinity, name.len), 0, ATSK_E_RANGE, "cookie name.len");
  spoilt(FIELD(a, atsk_policy_affinity, name.len), 11, ATSK_E_RANGE, "no token, cookie name.len");
  spoilt(FIELD(a, atsk_policy_affinity, attributes.off), UINT32_MAX - 17, ATSK_E_TRUNCATED, "attributes.off");
  spoilt(FIELD(a, atsk_policy_affinity, attributes.len), end, ATSK_E_TRUNCATED, "attributes.len");
  spoilt(FIELD(a, atsk_policy_affinity, attributes.len), 19, ATSK_E_RANGE,
         "a control byte, attributes.len"); /* the exempt range's 10 */
  spoilt(FIELD(a, atsk_policy_affinity, attributes.len), 0, ATSK_OK, "attributes.len");
  spoilt(FIELD(a, atsk_policy_affinity, secure), 3, ATSK_E_RANGE, "secure");
  spoilt(FIELD(a, atsk_policy_affinity, reserved), 1, ATSK_E_LAYOUT, "reserved of affinity");
  spoilt_bytes(text + 19 + 3, "\r", 1, ATSK_E_RANGE, "a CR in cookie attributes");
  spoilt_bytes(text + 19 + 3, "\n", 1, ATSK_E_RANGE, "a LF in cookie attributes");
  spoilt_bytes(text + 19 + 3, "\x7f", 1, ATSK_E_RANGE, "a DEL in cookie attributes");
  spoilt_bytes(text + 19 + 3, "\xc3", 1, ATSK_E_RANGE, "beyond ASCII in cookie attributes");
  spoilt_bytes(text + 9, "=", 1, ATSK_E_RANGE, "an equals sign in a cookie name");
  spoilt_bytes(text + 9, "", 1, ATSK_E_RANGE, "a NUL in a cookie name");
  spoilt_bytes(text, "X", 1, ATSK_E_RANGE, "a header name in upper case");
  spoilt_bytes(text, ":", 1, ATSK_E_RANGE, "a colon in a header name");
}

static void
retry_and_timeouts(struct atsk_span good)
{
  const size_t r = record_at(good, ATSK_POLICY_RETRY), t = record_at(good, ATSK_POLICY_TIMEOUTS);
  spoilt(FIELD(r, atsk_policy_retry, on), 0, ATSK_E_RANGE, "default set with statuses, on");
  spoilt(FIELD(r, atsk_policy_retry, on), ATSK_RETRY_CONNECT, ATSK_E_LAYOUT, "not given, on");
  spoilt(FIELD(r, atsk_policy_retry, on), ATSK_RETRY_GIVEN, ATSK_E_RANGE, "statuses without STATUS, on");
  spoilt(FIELD(r, atsk_policy_retry, on), 64 | ATSK_RETRY_GIVEN | ATSK_RETRY_STATUS, ATSK_E_LAYOUT, "unknown bit, on");
  spoilt(FIELD(r, atsk_policy_retry, tries), ATSK_RETRY_TRIES_MAX + 1, ATSK_E_RANGE, "tries");
  spoilt(FIELD(r, atsk_policy_retry, tries), 0, ATSK_OK, "tries");
  spoilt(FIELD(r, atsk_policy_retry, time_ms), ATSK_NONE, ATSK_OK, "time_ms");
  spoilt(FIELD(r, atsk_policy_retry, n_statuses), 9, ATSK_E_RANGE, "n_statuses");
  spoilt(FIELD(r, atsk_policy_retry, n_statuses), 3, ATSK_E_RANGE, "n_statuses");
  spoilt(FIELD(r, atsk_policy_retry, n_statuses), 1, ATSK_E_LAYOUT, "n_statuses");
  spoilt(FIELD(r, atsk_policy_retry, n_statuses), 0, ATSK_E_RANGE, "n_statuses");
  spoilt(FIELD(r, atsk_policy_retry, statuses), 503u | 503u << 16, ATSK_E_ORDER, "statuses, twice the same");
  spoilt(FIELD(r, atsk_policy_retry, statuses), 503u | 502u << 16, ATSK_E_ORDER, "statuses out of order");
  spoilt(FIELD(r, atsk_policy_retry, statuses), 99u | 502u << 16, ATSK_E_RANGE, "statuses");
  spoilt(FIELD(r, atsk_policy_retry, statuses), 502u | 600u << 16, ATSK_E_RANGE, "statuses");
  spoilt(FIELD(r, atsk_policy_retry, statuses) + 12, 1, ATSK_E_LAYOUT, "statuses behind the last");
  spoilt(FIELD(t, atsk_policy_timeouts, connect_ms), 0, ATSK_E_RANGE, "connect_ms");
  spoilt(FIELD(t, atsk_policy_timeouts, connect_ms), ATSK_NONE, ATSK_OK, "connect_ms");
  spoilt(FIELD(t, atsk_policy_timeouts, request_ms), 0, ATSK_OK, "request_ms");
}

static void
limits(struct atsk_span good)
{
  const size_t l      = record_at(good, ATSK_POLICY_LIMITS),
               exempt = header_of(good)->strings_off + header_of(good)->strings_size - BLOB_EXEMPT_LEN;
  spoilt(FIELD(l, atsk_policy_limits, client_rate_milli), 0, ATSK_E_RANGE, "client_rate_milli with a burst");
  spoilt(FIELD(l, atsk_policy_limits, client_burst), 0, ATSK_E_RANGE, "client_burst with a rate");
  spoilt(FIELD(l, atsk_policy_limits, total_rate_milli), 1, ATSK_E_RANGE, "total_rate_milli without burst");
  spoilt(FIELD(l, atsk_policy_limits, total_burst), 1, ATSK_E_RANGE, "total_burst without rate");
  spoilt(FIELD(l, atsk_policy_limits, total_concurrency), 1, ATSK_OK, "total_concurrency");
  spoilt(FIELD(l, atsk_policy_limits, scope), 1, ATSK_E_RANGE, "scope");
  spoilt(FIELD(l, atsk_policy_limits, n_exempt), 1, ATSK_E_TRUNCATED, "n_exempt");
  spoilt(FIELD(l, atsk_policy_limits, n_exempt), 3, ATSK_E_TRUNCATED, "n_exempt");
  spoilt(FIELD(l, atsk_policy_limits, n_exempt), UINT32_MAX, ATSK_E_RANGE, "n_exempt");
  spoilt(FIELD(l, atsk_policy_limits, exempt.off), header_of(good)->strings_size - BLOB_EXEMPT_LEN + 1, ATSK_E_TRUNCATED,
         "exempt.off");
  spoilt(FIELD(l, atsk_policy_limits, exempt.len), BLOB_EXEMPT_LEN - 1, ATSK_E_TRUNCATED, "exempt.len");
  spoilt_bytes(exempt + 16, "\5", 1, ATSK_E_RANGE, "family of an exempt range");
  spoilt_bytes(exempt + 17, "\41", 1, ATSK_E_RANGE, "33 bits of an IPv4 range");
  spoilt_bytes(exempt + 5, "\1", 1, ATSK_E_LAYOUT, "bytes behind an IPv4 range");
  spoilt_bytes(exempt + 35, "\201", 1, ATSK_E_RANGE, "129 bits of an IPv6 range");
}

/* Damaged at random, wherever policies are: what is still valid can be read. */
static void
damaged(void)
{
  unsigned n_valid = 0, sum = 0;
  for (unsigned round = 0; round < 100000; round++) {
    struct atsk_span blob = blob_of_all_policies();
    uint8_t *bytes        = (uint8_t *)(uintptr_t)blob.ptr;
    const uint32_t from   = header_of(blob)->rules_off;
    for (uint32_t n = 1 + random_below(3); n > 0; n--) {
      uint32_t at = random_below(8) == 0 ? random_below(64) : from + random_below((uint32_t)blob.len - from);
      bytes[at]   = random_below(2) ? (uint8_t)random_next() : (uint8_t)(bytes[at] + 1 - 2 * random_below(2));
    }
    if (atsk_blob_validate(blob) == ATSK_OK) {
      struct atsk_policies p;
      n_valid++;
      for (uint32_t i = 0; i < header_of(blob)->n_rules; i++) {
        atsk_policies_view(blob, atsk_blob_rule_at(blob, i), &p);
        if (p.affinity != NULL) {
          struct atsk_str text = atsk_blob_str_view(blob, p.affinity->attributes);
          for (size_t k = 0; k < text.len; k++) {
            sum += (unsigned char)text.ptr[k];
          }
        }
        sum += p.limits != NULL ? p.limits->n_exempt : 0;
      }
    }
    free(bytes);
  }
  CHECK(n_valid > 0 && sum > 0, "%u of 100,000 damaged blobs were still valid, and could be read", n_valid);
}

int
main(void)
{
  random_seed();
  views();
  struct atsk_span good = blob_of_all_policies();
  rows(good);
  snippet(good);
  balance_and_affinity(good);
  retry_and_timeouts(good);
  limits(good);
  free((void *)(uintptr_t)good.ptr);
  damaged();
  return tap_end();
}
