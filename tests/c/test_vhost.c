/* Blob validation and matching: the rules of Ingress v1, every field spoilt in turn, and random damage under the sanitizers. */
#include "blobs.h"
#include "tap.h"
#include "blob/vhost.h"

#include <stdlib.h>

static const struct blob_path paths[] = {
  {"/", false, 0},     {"/aaa", false, 1},        {"/aaa/bbb", false, 2},    {"/aaa/bbb", true, 3},
  {"/exact", true, 4}, {"/exact/", true, 5},      {"/slash/", false, 6},     {"/a", false, 7},
  {"/a", true, 8},     {"/deep/a/b/c", false, 9}, {"/npm/@s%2Fp", true, 10}, {"/zz", false, ATSK_NONE},
};
#define N_PATHS (sizeof paths / sizeof paths[0])
#define N_SERVICES 11u

static void
matches(struct atsk_span blob, const char *path, uint32_t expected)
{
  uint32_t rule       = 12345;
  enum atsk_status st = atsk_blob_match(blob, (struct atsk_str){path, strlen(path)}, &rule);
  if (expected == ATSK_NONE) {
    CHECK(st == ATSK_MISS && rule == 12345, "\"%s\" matches nothing", path);
  } else {
    CHECK(st == ATSK_OK && rule == expected, "\"%s\" matches rule %u (got %u)", path, expected, rule);
  }
}

static void
matching(void)
{
  struct atsk_span blob = blob_build(paths, N_PATHS, ATSK_NONE, N_SERVICES);
  CHECK(atsk_blob_validate(blob) == ATSK_OK, "a blob of %zu paths is valid", N_PATHS);
  matches(blob, "/", 0);
  matches(blob, "/x", 0);
  matches(blob, "/aaa", 1);
  matches(blob, "/aaa/", 1);
  matches(blob, "/aaa/ccc", 1);
  matches(blob, "/aaaccc", 0);
  matches(blob, "/aaa/bbb", 3);
  matches(blob, "/aaa/bbb/", 2);
  matches(blob, "/aaa/bbb/ccc", 2);
  matches(blob, "/aaa/bbbxyz", 1);
  matches(blob, "/AAA", 0);
  matches(blob, "/exact", 4);
  matches(blob, "/exact/", 5);
  matches(blob, "/exact/x", 0);
  matches(blob, "/slash", 6);
  matches(blob, "/slash/", 6);
  matches(blob, "/slash/x", 6);
  matches(blob, "/a", 8);
  matches(blob, "/a/x", 7);
  matches(blob, "/deep/a/b", 0);
  matches(blob, "/deep/a/b/c/d/e/f", 9);
  matches(blob, "/npm/@s%2Fp", 10);
  matches(blob, "/npm/@s/p", 0);
  matches(blob, "/zz", 11);
  matches(blob, "", ATSK_NONE);
  matches(blob, "*", ATSK_NONE);
  CHECK(atsk_blob_rule_at(blob, 11)->action == ATSK_ACTION_NO_BACKEND, "a rule without backend says so");
  struct atsk_str shown = atsk_blob_str_view(blob, atsk_blob_rule_at(blob, 9)->path);
  CHECK(shown.len == 11 && memcmp(shown.ptr, "/deep/a/b/c", 11) == 0, "a rule keeps its path");
  free((void *)(uintptr_t)blob.ptr);

  static const struct blob_path one[] = {{"/only", true, 0}};
  blob                                = blob_build(one, 1, ATSK_NONE, 1);
  CHECK(atsk_blob_validate(blob) == ATSK_OK, "one exact path is valid");
  matches(blob, "/only", 0);
  matches(blob, "/only/", ATSK_NONE);
  matches(blob, "/", ATSK_NONE);
  free((void *)(uintptr_t)blob.ptr);
  blob = blob_build(one, 1, 0, 1);
  CHECK(atsk_blob_validate(blob) == ATSK_OK, "a default rule is valid");
  matches(blob, "/other", 1);
  free((void *)(uintptr_t)blob.ptr);
  blob = blob_build(NULL, 0, 0, 1);
  CHECK(atsk_blob_validate(blob) == ATSK_OK, "a default rule alone is valid");
  matches(blob, "/", 0);
  free((void *)(uintptr_t)blob.ptr);
}

/* Writes `value` over the u32 at `off` of a good blob, and says what validation makes of it. */
static void
spoilt(size_t off, uint32_t value, enum atsk_status expected, const char *what)
{
  struct atsk_span blob = blob_build(paths, N_PATHS, 0, N_SERVICES);
  uint8_t *bytes        = (uint8_t *)(uintptr_t)blob.ptr;
  memcpy(bytes + off, &value, sizeof value);
  enum atsk_status st = atsk_blob_validate(blob);
  CHECK(st == expected, "%s = %u: %d (got %d)", what, value, (int)expected, (int)st);
  free(bytes);
}

#define HEADER(field) offsetof(struct atsk_blob_header, field), #field

static void
spoilt_header(size_t off, const char *what, uint32_t value, enum atsk_status expected)
{
  spoilt(off, value, expected, what);
}

static void
spoilt_fields(void)
{
  struct atsk_span good                = blob_build(paths, N_PATHS, 0, N_SERVICES);
  const struct atsk_blob_header header = *atsk_blob_header_view(good);
  free((void *)(uintptr_t)good.ptr);
  size_t node = header.nodes_off, rule = header.rules_off, backend = header.backends_off;
  spoilt_header(HEADER(magic), 0, ATSK_E_LAYOUT);
  spoilt_header(HEADER(version), (ATSK_BLOB_VERSION + 1u) | 64u << 16, ATSK_E_LAYOUT);
  spoilt_header(HEADER(version), ATSK_BLOB_VERSION | 72u << 16, ATSK_E_LAYOUT);
  spoilt_header(HEADER(total_size), header.total_size - 8, ATSK_E_LAYOUT);
  spoilt_header(HEADER(total_size), header.total_size + 8, ATSK_E_TRUNCATED);
  spoilt_header(HEADER(total_size), header.total_size - 1, ATSK_E_LAYOUT);
  spoilt_header(HEADER(n_nodes), 0, ATSK_E_RANGE);
  spoilt_header(HEADER(n_nodes), 1, ATSK_E_TRUNCATED);
  spoilt_header(HEADER(n_nodes), UINT32_MAX, ATSK_E_TRUNCATED);
  spoilt_header(HEADER(n_nodes), header.n_nodes - 1, ATSK_E_TRUNCATED);
  spoilt_header(HEADER(n_rules), UINT32_MAX, ATSK_E_TRUNCATED);
  spoilt_header(HEADER(n_rules), 1, ATSK_E_TRUNCATED);
  spoilt_header(HEADER(n_backends), UINT32_MAX / 8, ATSK_E_TRUNCATED);
  spoilt_header(HEADER(n_backends), 0, ATSK_E_TRUNCATED);
  spoilt_header(HEADER(n_policies), 1, ATSK_E_LAYOUT);
  spoilt_header(HEADER(nodes_off), 4, ATSK_E_LAYOUT);
  spoilt_header(HEADER(nodes_off), 0, ATSK_E_LAYOUT);
  spoilt_header(HEADER(nodes_off), UINT32_MAX - 7, ATSK_E_TRUNCATED);
  spoilt_header(HEADER(rules_off), header.total_size + 8, ATSK_E_TRUNCATED);
  spoilt_header(HEADER(strings_off), header.strings_off + 1, ATSK_E_LAYOUT);
  spoilt_header(HEADER(strings_size), UINT32_MAX, ATSK_E_TRUNCATED);
  spoilt_header(HEADER(strings_size), 8, ATSK_E_TRUNCATED);
  spoilt_header(HEADER(default_rule), header.n_rules, ATSK_E_RANGE);
  spoilt_header(HEADER(n_services), 1, ATSK_E_RANGE);
  spoilt_header(HEADER(n_routes), 1, ATSK_E_RANGE);
  spoilt(node + offsetof(struct atsk_blob_node, segment.len), 1, ATSK_E_LAYOUT, "root segment.len");
  spoilt(node + offsetof(struct atsk_blob_node, first_child), 0, ATSK_E_ORDER, "root first_child: itself");
  spoilt(node + offsetof(struct atsk_blob_node, first_child), 2, ATSK_E_ORDER, "root first_child: skips one");
  spoilt(node + offsetof(struct atsk_blob_node, n_children), UINT32_MAX, ATSK_E_TRUNCATED, "root n_children");
  spoilt(node + offsetof(struct atsk_blob_node, n_children), 0, ATSK_E_LAYOUT, "root without children but with a first");
  spoilt(node + offsetof(struct atsk_blob_node, exact_rule), header.n_rules, ATSK_E_TRUNCATED, "exact_rule");
  spoilt(node + offsetof(struct atsk_blob_node, prefix_rule), header.n_rules, ATSK_E_TRUNCATED, "prefix_rule");
  spoilt(node + offsetof(struct atsk_blob_node, n_prefix), 0, ATSK_E_TRUNCATED, "n_prefix without rules");
  spoilt(node + offsetof(struct atsk_blob_node, n_prefix), UINT32_MAX, ATSK_E_TRUNCATED, "n_prefix");
  spoilt(node + offsetof(struct atsk_blob_node, n_exact), 1, ATSK_E_TRUNCATED, "n_exact of no rule");
  size_t second = node + sizeof(struct atsk_blob_node);
  spoilt(second + offsetof(struct atsk_blob_node, segment.off), UINT32_MAX, ATSK_E_TRUNCATED, "segment.off");
  spoilt(second + offsetof(struct atsk_blob_node, segment.len), UINT32_MAX, ATSK_E_TRUNCATED, "segment.len");
  spoilt(second + offsetof(struct atsk_blob_node, segment.off), 0, ATSK_E_ORDER, "segment out of order, or with a slash");
  spoilt(second + 2 * sizeof(struct atsk_blob_node) + offsetof(struct atsk_blob_node, segment.len), 0, ATSK_E_ORDER,
         "sibling order");
  spoilt(rule + offsetof(struct atsk_blob_rule, action), 2, ATSK_E_RANGE, "action");
  spoilt(rule + offsetof(struct atsk_blob_rule, action), 1, ATSK_E_RANGE, "no backend, but backends");
  spoilt(rule + offsetof(struct atsk_blob_rule, route), header.n_routes, ATSK_E_RANGE, "route");
  spoilt(rule + offsetof(struct atsk_blob_rule, first_backend), header.n_backends, ATSK_E_TRUNCATED, "first_backend");
  spoilt(rule + offsetof(struct atsk_blob_rule, n_backends), UINT32_MAX, ATSK_E_TRUNCATED, "n_backends");
  spoilt(rule + offsetof(struct atsk_blob_rule, n_backends), 0, ATSK_E_RANGE, "forward without backends");
  spoilt(rule + offsetof(struct atsk_blob_rule, n_policies), 1, ATSK_E_TRUNCATED, "n_policies");
  spoilt(rule + offsetof(struct atsk_blob_rule, first_policy), 1, ATSK_E_LAYOUT, "first_policy");
  spoilt(rule + offsetof(struct atsk_blob_rule, n_conditions), 1, ATSK_E_LAYOUT, "n_conditions");
  spoilt(rule + offsetof(struct atsk_blob_rule, first_condition), 1, ATSK_E_LAYOUT, "first_condition");
  spoilt(rule + offsetof(struct atsk_blob_rule, object.len), UINT32_MAX, ATSK_E_TRUNCATED, "object.len");
  spoilt(rule + offsetof(struct atsk_blob_rule, path.off), UINT32_MAX, ATSK_E_TRUNCATED, "path.off");
  spoilt(backend + offsetof(struct atsk_blob_backend, service), N_SERVICES, ATSK_E_RANGE, "backend service");
  spoilt(backend + offsetof(struct atsk_blob_backend, weight), 0, ATSK_E_RANGE, "backend weight");
}

static void
cut_and_shifted(void)
{
  struct atsk_span blob = blob_build(paths, N_PATHS, 0, N_SERVICES);
  unsigned n_valid      = 0;
  for (size_t len = 0; len < blob.len; len++) {
    uint8_t *cut = malloc(len > 0 ? len : 1); /* its own allocation: a read past the end is seen */
    memcpy(cut, blob.ptr, len);
    n_valid += atsk_blob_validate((struct atsk_span){cut, len}) == ATSK_OK;
    free(cut);
  }
  CHECK(n_valid == 0, "cut at each byte: never valid");
  uint8_t *shifted = malloc(blob.len + 4);
  memcpy(shifted + 4, blob.ptr, blob.len);
  CHECK(atsk_blob_validate((struct atsk_span){shifted + 4, blob.len}) == ATSK_E_LAYOUT, "not 8-aligned");
  free(shifted);
  free((void *)(uintptr_t)blob.ptr);
}

/* Damaged at random: what is still valid can be matched against, whatever it answers. */
static void
damaged(void)
{
  unsigned n_valid = 0;
  for (unsigned round = 0; round < 100000; round++) {
    struct atsk_span blob = blob_build(paths, 4 + random_below(N_PATHS - 4), random_below(2) ? 0 : ATSK_NONE, N_SERVICES);
    uint8_t *bytes        = (uint8_t *)(uintptr_t)blob.ptr;
    for (uint32_t n = 1 + random_below(3); n > 0; n--) {
      uint32_t at = random_below((uint32_t)blob.len);
      bytes[at]   = random_below(2) ? (uint8_t)random_next() : (uint8_t)(bytes[at] + 1 - 2 * random_below(2));
    }
    if (atsk_blob_validate(blob) == ATSK_OK) {
      static const char *const asked[] = {"/", "/aaa/bbb", "/exact/", "/deep/a/b/c/d", "/npm/x", ""};
      n_valid++;
      for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        uint32_t rule;
        if (atsk_blob_match(blob, (struct atsk_str){asked[i], strlen(asked[i])}, &rule) == ATSK_OK) {
          REQUIRE(rule < atsk_blob_header_view(blob)->n_rules, "a matched rule is there");
        }
      }
    }
    free(bytes);
  }
  CHECK(n_valid > 1000, "%u of 100,000 damaged blobs are still valid, and harmless", n_valid);
}

/* Nodes deeper than ATSK_DEPTH_MAX, and a sibling list of 3,000. */
static void
extremes(void)
{
  char *deep = malloc(2 * (ATSK_DEPTH_MAX + 1) + 1);
  for (size_t i = 0; i < ATSK_DEPTH_MAX + 1; i++) {
    memcpy(deep + 2 * i, "/a", 3);
  }
  struct blob_path path = {deep, true, 0};
  struct atsk_span blob = blob_build(&path, 1, ATSK_NONE, 1);
  CHECK(atsk_blob_validate(blob) == ATSK_E_RANGE, "deeper than ATSK_DEPTH_MAX");
  free((void *)(uintptr_t)blob.ptr);
  deep[2 * ATSK_DEPTH_MAX] = '\0';
  blob                     = blob_build(&path, 1, ATSK_NONE, 1);
  CHECK(atsk_blob_validate(blob) == ATSK_OK, "as deep as ATSK_DEPTH_MAX");
  matches(blob, deep, 0);
  free((void *)(uintptr_t)blob.ptr);
  free(deep);

  enum { N = 1000 };
  static char text[N][16];
  static struct blob_path wide[N];
  for (uint32_t i = 0; i < N; i++) {
    snprintf(text[i], sizeof text[i], "/p%u", i * 7919 % 100000);
    wide[i] = (struct blob_path){text[i], (i & 1) != 0, i};
  }
  blob         = blob_build(wide, N, ATSK_NONE, N);
  bool is_good = atsk_blob_validate(blob) == ATSK_OK;
  for (uint32_t i = 0; i < N; i++) {
    uint32_t rule = ATSK_NONE;
    is_good       = is_good && atsk_blob_match(blob, (struct atsk_str){text[i], strlen(text[i])}, &rule) == ATSK_OK && rule == i;
  }
  CHECK(is_good, "each of %d siblings is found", N);
  free((void *)(uintptr_t)blob.ptr);
}

int
main(void)
{
  random_seed();
  matching();
  spoilt_fields();
  cut_and_shifted();
  damaged();
  extremes();
  return tap_end();
}
