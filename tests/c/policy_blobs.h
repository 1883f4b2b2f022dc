/* Blobs with policies: what blobs.h builds, and a row and a record for each policy between its backends and its strings. */
#ifndef ATSK_TESTS_POLICY_BLOBS_H
#define ATSK_TESTS_POLICY_BLOBS_H

#include "blobs.h"

struct blob_policy { /* all of one blob have different kinds, in order; every rule has them all */
  uint32_t kind, size;
  const void *record;
};

/* `blob`, which is taken, with `n` policies, and `strings_len` bytes more behind its strings, for the records to name.  Freed by the caller;
 * never NULL. */
static inline struct atsk_span
blob_with_policies(struct atsk_span blob, const struct blob_policy *policies, uint32_t n, const void *strings, uint32_t strings_len)
{
  const struct atsk_blob_header *h = (const void *)blob.ptr;
  uint32_t data                    = h->policies_off + n * (uint32_t)sizeof(struct atsk_blob_policy);
  uint32_t strings_off             = data;
  for (uint32_t i = 0; i < n; i++) {
    strings_off += (policies[i].size + 7) / 8 * 8;
  }
  uint32_t total = (strings_off + h->strings_size + strings_len + 7) / 8 * 8;
  uint8_t *bytes = calloc(1, total);
  memcpy(bytes, blob.ptr, h->policies_off);
  memcpy(bytes + strings_off, blob.ptr + h->strings_off, h->strings_size);
  if (strings_len > 0) {
    memcpy(bytes + strings_off + h->strings_size, strings, strings_len);
  }
  for (uint32_t i = 0; i < n; i++) {
    const struct atsk_blob_policy row = {.kind = policies[i].kind, .size = policies[i].size, .off = data};
    memcpy(bytes + h->policies_off + i * sizeof row, &row, sizeof row);
    memcpy(bytes + data, policies[i].record, policies[i].size);
    data += (policies[i].size + 7) / 8 * 8;
  }
  struct atsk_blob_header *made = (void *)bytes;
  struct atsk_blob_rule *rules  = (void *)(bytes + h->rules_off);
  for (uint32_t i = 0; i < h->n_rules; i++) {
    rules[i].n_policies = n;
  }
  made->n_policies   = n;
  made->strings_off  = strings_off;
  made->strings_size = h->strings_size + strings_len;
  made->total_size   = total;
  free((void *)(uintptr_t)blob.ptr);
  return (struct atsk_span){bytes, total};
}

/* A blob of one rule, which has every kind of policy, each with something in most of its fields. */
#define BLOB_TEXT \
  "x-session"     \
  "JSESSIONID"    \
  "; Path=/; HttpOnly" /* 9, 10, 18 bytes; two exempt ranges follow */
#define BLOB_TEXT_LEN 37u
#define BLOB_EXEMPT_LEN (2 * ATSK_EXEMPT_SIZE)

static inline struct atsk_span
blob_of_all_policies(void)
{
  static const struct blob_path path               = {"/p", false, 0};
  struct atsk_span blob                            = blob_build(&path, 1, ATSK_NONE, 1);
  uint32_t at                                      = ((const struct atsk_blob_header *)(const void *)blob.ptr)->strings_size;
  uint8_t strings[BLOB_TEXT_LEN + BLOB_EXEMPT_LEN] = {0};
  memcpy(strings, BLOB_TEXT, BLOB_TEXT_LEN);
  uint8_t *exempt = strings + BLOB_TEXT_LEN;
  exempt[0]       = 10;
  exempt[16]      = ATSK_FAMILY_IPV4;
  exempt[17]      = 8;
  exempt[18]      = 0xFD;
  exempt[34]      = ATSK_FAMILY_IPV6;
  exempt[35]      = 8;

  const struct atsk_policy_balance balance = {
    .algorithm = ATSK_BALANCE_HASH, .hash_source = ATSK_HASH_HEADER, .name = {at, 9}, .load_percent = 125};
  const struct atsk_policy_affinity affinity = {.name = {at + 9, 10}, .attributes = {at + 19, 18}, .secure = ATSK_SECURE_ALWAYS};
  const struct atsk_policy_retry retry       = {.on         = ATSK_RETRY_GIVEN | ATSK_RETRY_CONNECT | ATSK_RETRY_STATUS,
                                                .tries      = 8,
                                                .time_ms    = 500,
                                                .n_statuses = 2,
                                                .statuses   = {429, 503}};
  const struct atsk_policy_timeouts timeouts = {.connect_ms = 100, .read_ms = ATSK_NONE, .send_ms = 0, .request_ms = 30000};
  const struct atsk_policy_limits limits     = {.client_rate_milli  = 10000,
                                                .client_burst       = 50,
                                                .client_concurrency = 5,
                                                .exempt             = {at + BLOB_TEXT_LEN, BLOB_EXEMPT_LEN},
                                                .n_exempt           = 2};
  const struct atsk_policy_body body         = {.max_bytes = 1 << 20};
  const struct atsk_policy_snippet snippet   = {.id = 1, .text = {at, 9}}; /* what it says, Lua will judge */
  const struct blob_policy policies[]        = {
           {ATSK_POLICY_BALANCE, sizeof balance, &balance}, {ATSK_POLICY_AFFINITY, sizeof affinity, &affinity},
           {ATSK_POLICY_RETRY, sizeof retry, &retry},       {ATSK_POLICY_TIMEOUTS, sizeof timeouts, &timeouts},
           {ATSK_POLICY_LIMITS, sizeof limits, &limits},    {ATSK_POLICY_BODY, sizeof body, &body},
           {ATSK_POLICY_SNIPPET, sizeof snippet, &snippet},
  };
  return blob_with_policies(blob, policies, 7, strings, sizeof strings);
}

#endif
