/* See policies.h.  An unknown kind, an unknown bit or a value out of range refuses the whole blob: a policy may restrict, and serving
 * the rule without it would widen the rule. */
#include "blob/policies.h"

#include <stdbool.h>
#include <string.h>

/* The bytes that a blob's strings have. */
struct strings {
  const char *bytes;
  uint32_t size;
};

static const struct atsk_blob_header *
header_of(struct atsk_span blob)
{
  return (const void *)blob.ptr;
}

static const struct atsk_blob_policy *
policy_at(struct atsk_span blob, uint32_t policy)
{
  return (const struct atsk_blob_policy *)(const void *)(blob.ptr + header_of(blob)->policies_off) + policy;
}

static bool
string_inside(const struct strings *strings, struct atsk_blob_str s)
{
  return s.off <= strings->size && s.len <= strings->size - s.off;
}

/* tchar of RFC 9110 section 5.6.2: header names, and cookie names (RFC 6265 section 4.1.1). */
static bool
is_token_byte(unsigned char c)
{
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) {
    return true;
  }
  return c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

static bool
is_upper(unsigned char c)
{
  return c >= 'A' && c <= 'Z';
}

/* A token of 1..`max` bytes inside the strings. */
static enum atsk_status
token_check(const struct strings *strings, struct atsk_blob_str s, uint32_t max, bool is_lower)
{
  if (!string_inside(strings, s)) {
    return ATSK_E_TRUNCATED;
  }
  if (s.len == 0 || s.len > max) {
    return ATSK_E_RANGE;
  }
  for (uint32_t i = 0; i < s.len; i++) {
    unsigned char c = (unsigned char)strings->bytes[s.off + i];
    if (!is_token_byte(c) || (is_lower && is_upper(c))) {
      return ATSK_E_RANGE;
    }
  }
  return ATSK_OK;
}

static enum atsk_status
balance_check(const struct atsk_policy_balance *p, const struct strings *strings)
{
  const bool is_hash  = p->algorithm == ATSK_BALANCE_HASH;
  const bool is_named = p->hash_source == ATSK_HASH_HEADER || p->hash_source == ATSK_HASH_COOKIE;
  if (p->reserved != 0) {
    return ATSK_E_LAYOUT;
  }
  if (p->algorithm > ATSK_BALANCE_HASH || p->hash_source > ATSK_HASH_COOKIE || is_hash != (p->hash_source != ATSK_HASH_NONE)) {
    return ATSK_E_RANGE;
  }
  if (p->load_percent != 0 && (!is_hash || p->load_percent < ATSK_LOAD_PERCENT_MIN || p->load_percent > ATSK_LOAD_PERCENT_MAX)) {
    return ATSK_E_RANGE;
  }
  if (!is_named) {
    return p->name.off == 0 && p->name.len == 0 ? ATSK_OK : ATSK_E_LAYOUT;
  }
  return token_check(strings, p->name, ATSK_HASH_NAME_MAX, p->hash_source == ATSK_HASH_HEADER);
}

static enum atsk_status
affinity_check(const struct atsk_policy_affinity *p, const struct strings *strings)
{
  enum atsk_status st = token_check(strings, p->name, ATSK_COOKIE_NAME_MAX, false);
  if (st != ATSK_OK) {
    return st;
  }
  if (!string_inside(strings, p->attributes)) {
    return ATSK_E_TRUNCATED;
  }
  if (p->reserved != 0) {
    return ATSK_E_LAYOUT;
  }
  if (p->attributes.len > ATSK_COOKIE_ATTRIBUTES_MAX || p->secure > ATSK_SECURE_NEVER) {
    return ATSK_E_RANGE;
  }
  for (uint32_t i = 0; i < p->attributes.len; i++) { /* a CR or LF here would end the header, and begin another */
    unsigned char c = (unsigned char)strings->bytes[p->attributes.off + i];
    if (c < 0x20 || c > 0x7E) {
      return ATSK_E_RANGE;
    }
  }
  return ATSK_OK;
}

static enum atsk_status
retry_check(const struct atsk_policy_retry *p)
{
  const uint32_t known =
    ATSK_RETRY_GIVEN | ATSK_RETRY_CONNECT | ATSK_RETRY_TIMEOUT | ATSK_RETRY_RESET | ATSK_RETRY_STATUS | ATSK_RETRY_NON_IDEMPOTENT;
  if ((p->on & ~known) != 0 || (p->on != 0 && (p->on & ATSK_RETRY_GIVEN) == 0)) {
    return ATSK_E_LAYOUT;
  }
  if (p->tries > ATSK_RETRY_TRIES_MAX || p->n_statuses > ATSK_RETRY_STATUSES_MAX ||
      (p->n_statuses > 0) != ((p->on & ATSK_RETRY_STATUS) != 0)) {
    return ATSK_E_RANGE;
  }
  for (uint32_t i = 0; i < ATSK_RETRY_STATUSES_MAX; i++) {
    if (i >= p->n_statuses) {
      if (p->statuses[i] != 0) {
        return ATSK_E_LAYOUT;
      }
    } else if (p->statuses[i] < 100 || p->statuses[i] > 599) {
      return ATSK_E_RANGE;
    } else if (i > 0 && p->statuses[i] <= p->statuses[i - 1]) {
      return ATSK_E_ORDER;
    }
  }
  return ATSK_OK;
}

static enum atsk_status
timeouts_check(const struct atsk_policy_timeouts *p)
{
  return p->connect_ms == 0 ? ATSK_E_RANGE : ATSK_OK; /* "no connect timeout" would hold a request for ever on a dead pod */
}

/* One exempt range: addr[16], family, bits. */
static enum atsk_status
exempt_check(const uint8_t range[ATSK_EXEMPT_SIZE])
{
  static const uint8_t zero[12] = {0};
  if (range[16] == ATSK_FAMILY_IPV4) {
    if (memcmp(range + 4, zero, sizeof zero) != 0) {
      return ATSK_E_LAYOUT;
    }
    return range[17] <= 32 ? ATSK_OK : ATSK_E_RANGE;
  }
  return range[16] == ATSK_FAMILY_IPV6 && range[17] <= 128 ? ATSK_OK : ATSK_E_RANGE;
}

static enum atsk_status
limits_check(const struct atsk_policy_limits *p, const struct strings *strings, uint32_t n_routes)
{
  if ((p->client_rate_milli > 0) != (p->client_burst > 0) || (p->total_rate_milli > 0) != (p->total_burst > 0)) {
    return ATSK_E_RANGE;
  }
  if (p->scope >= n_routes || p->n_exempt > ATSK_EXEMPT_MAX) {
    return ATSK_E_RANGE;
  }
  if (!string_inside(strings, p->exempt) || p->exempt.len != p->n_exempt * ATSK_EXEMPT_SIZE) {
    return ATSK_E_TRUNCATED;
  }
  for (uint32_t i = 0; i < p->n_exempt; i++) {
    enum atsk_status st = exempt_check((const uint8_t *)strings->bytes + p->exempt.off + (size_t)i * ATSK_EXEMPT_SIZE);
    if (st != ATSK_OK) {
      return st;
    }
  }
  return ATSK_OK;
}

/* Lua's own parser is the judge of the text.  Nothing here looks at its bytes: many records may name them. */
static enum atsk_status
snippet_check(const struct atsk_policy_snippet *p, const struct strings *strings)
{
  if (!string_inside(strings, p->text)) {
    return ATSK_E_TRUNCATED;
  }
  return p->text.len == 0 || p->text.len > ATSK_SNIPPET_MAX ? ATSK_E_RANGE : ATSK_OK;
}

/* The size of a kind's record; 0: there is no such kind. */
static uint32_t
size_of_kind(uint32_t kind)
{
  switch (kind) {
  case ATSK_POLICY_BALANCE:
    return sizeof(struct atsk_policy_balance);
  case ATSK_POLICY_AFFINITY:
    return sizeof(struct atsk_policy_affinity);
  case ATSK_POLICY_RETRY:
    return sizeof(struct atsk_policy_retry);
  case ATSK_POLICY_TIMEOUTS:
    return sizeof(struct atsk_policy_timeouts);
  case ATSK_POLICY_LIMITS:
    return sizeof(struct atsk_policy_limits);
  case ATSK_POLICY_BODY:
    return sizeof(struct atsk_policy_body);
  case ATSK_POLICY_SNIPPET:
    return sizeof(struct atsk_policy_snippet);
  default:
    return 0;
  }
}

/* The record of a policy whose kind, size and place were checked. */
static enum atsk_status
record_check(const struct atsk_blob_policy *policy, const void *record, const struct strings *strings, uint32_t n_routes)
{
  switch (policy->kind) {
  case ATSK_POLICY_BALANCE:
    return balance_check(record, strings);
  case ATSK_POLICY_AFFINITY:
    return affinity_check(record, strings);
  case ATSK_POLICY_RETRY:
    return retry_check(record);
  case ATSK_POLICY_TIMEOUTS:
    return timeouts_check(record);
  case ATSK_POLICY_LIMITS:
    return limits_check(record, strings, n_routes);
  case ATSK_POLICY_SNIPPET:
    return snippet_check(record, strings);
  default: /* ATSK_POLICY_BODY: every number is a size */
    return ATSK_OK;
  }
}

/* Every policy, and its record in the data between policies[] and the strings. */
static enum atsk_status
records_check(struct atsk_span blob)
{
  const struct atsk_blob_header *h = header_of(blob);
  const uint32_t data              = h->policies_off + h->n_policies * (uint32_t)sizeof(struct atsk_blob_policy); /* in bounds */
  const struct strings strings     = {(const char *)(blob.ptr + h->strings_off), h->strings_size};
  if (h->n_policies > 0 && h->strings_off < data) {
    return ATSK_E_LAYOUT;
  }
  for (uint32_t i = 0; i < h->n_policies; i++) {
    const struct atsk_blob_policy *policy = policy_at(blob, i);
    const uint32_t size                   = size_of_kind(policy->kind);
    if (size == 0 || policy->size != size || policy->reserved != 0 || policy->off % 8 != 0) {
      return ATSK_E_LAYOUT;
    }
    if (policy->off < data || policy->off > h->strings_off || size > h->strings_off - policy->off) {
      return ATSK_E_TRUNCATED;
    }
    enum atsk_status st = record_check(policy, blob.ptr + policy->off, &strings, h->n_routes);
    if (st != ATSK_OK) {
      return st;
    }
  }
  return ATSK_OK;
}

enum atsk_status
atsk_policies_validate(struct atsk_span blob)
{
  const struct atsk_blob_header *h   = header_of(blob);
  const struct atsk_blob_rule *rules = (const void *)(blob.ptr + h->rules_off);
  enum atsk_status st                = records_check(blob);
  if (st != ATSK_OK) {
    return st;
  }
  for (uint32_t i = 0; i < h->n_rules; i++) {
    const uint32_t first = rules[i].first_policy;
    const uint32_t n     = rules[i].n_policies;
    if (n == 0) {
      if (first != 0) {
        return ATSK_E_LAYOUT;
      }
      continue;
    }
    if (first > h->n_policies || n > h->n_policies - first) {
      return ATSK_E_TRUNCATED;
    }
    if (n > ATSK_POLICY_SNIPPET) { /* before the walk: rules may share rows, and long runs would cost the square */
      return ATSK_E_ORDER;
    }
    for (uint32_t k = 1; k < n; k++) {
      if (policy_at(blob, first + k)->kind <= policy_at(blob, first + k - 1)->kind) {
        return ATSK_E_ORDER;
      }
    }
  }
  return ATSK_OK;
}

void
atsk_policies_view(struct atsk_span blob, const struct atsk_blob_rule *rule, struct atsk_policies *out)
{
  memset(out, 0, sizeof *out);
  for (uint32_t i = 0; i < rule->n_policies; i++) { /* at most one of each kind */
    const struct atsk_blob_policy *policy = policy_at(blob, rule->first_policy + i);
    const void *record                    = blob.ptr + policy->off;
    switch (policy->kind) {
    case ATSK_POLICY_BALANCE:
      out->balance = record;
      break;
    case ATSK_POLICY_AFFINITY:
      out->affinity = record;
      break;
    case ATSK_POLICY_RETRY:
      out->retry = record;
      break;
    case ATSK_POLICY_TIMEOUTS:
      out->timeouts = record;
      break;
    case ATSK_POLICY_LIMITS:
      out->limits = record;
      break;
    case ATSK_POLICY_BODY:
      out->body = record;
      break;
    case ATSK_POLICY_SNIPPET:
      out->snippet = record;
      break;
    default:
      break;
    }
  }
}
