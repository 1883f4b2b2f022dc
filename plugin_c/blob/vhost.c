/* Validation and matching of a virtual host's blob.  Writer's thread validates, any thread matches; no state.  After
 * atsk_blob_validate every index and offset is trusted, so whatever the readers below follow is checked there. */
#include "blob/vhost.h"

#include "blob/policies.h"

#include <stdalign.h>
#include <stdbool.h>
#include <string.h>

/* The typed sections of a blob under validation. */
struct sections {
  const struct atsk_blob_header *header;
  const struct atsk_blob_node *nodes;
  const struct atsk_blob_rule *rules;
  const struct atsk_blob_backend *backends;
  const char *strings;
};

/* Bounds of `n` items of `size` bytes at byte `off`; nothing here can overflow. */
static enum atsk_status
section_check(size_t total, uint32_t off, uint32_t n, size_t size)
{
  if (off % 8 != 0) {
    return ATSK_E_LAYOUT;
  }
  if (off > total || n > (total - off) / size) {
    return ATSK_E_TRUNCATED;
  }
  return off < sizeof(struct atsk_blob_header) && n > 0 ? ATSK_E_LAYOUT : ATSK_OK;
}

static enum atsk_status
header_check(struct atsk_span blob, struct sections *out)
{
  if ((uintptr_t)blob.ptr % 8 != 0) {
    return ATSK_E_LAYOUT;
  }
  if (blob.len < sizeof(struct atsk_blob_header)) {
    return ATSK_E_TRUNCATED;
  }
  const struct atsk_blob_header *h = (const void *)blob.ptr;
  if (h->magic != ATSK_BLOB_MAGIC || h->version != ATSK_BLOB_VERSION || h->header_size != sizeof *h || h->total_size % 8 != 0) {
    return ATSK_E_LAYOUT;
  }
  if (h->total_size > blob.len) {
    return ATSK_E_TRUNCATED;
  }
  if (h->total_size != blob.len) { /* bytes that nothing accounts for */
    return ATSK_E_LAYOUT;
  }
  if (blob.len > ATSK_BLOB_MAX || h->n_nodes == 0) {
    return ATSK_E_RANGE;
  }
  const struct {
    uint32_t off, n;
    size_t size;
  } sections[] = {
    {h->nodes_off, h->n_nodes, sizeof(struct atsk_blob_node)},
    {h->rules_off, h->n_rules, sizeof(struct atsk_blob_rule)},
    {h->backends_off, h->n_backends, sizeof(struct atsk_blob_backend)},
    {h->policies_off, h->n_policies, sizeof(struct atsk_blob_policy)},
    {h->strings_off, h->strings_size, 1},
  };
  for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
    enum atsk_status st = section_check(blob.len, sections[i].off, sections[i].n, sections[i].size);
    if (st != ATSK_OK) {
      return st;
    }
  }
  out->header   = h;
  out->nodes    = (const void *)(blob.ptr + h->nodes_off);
  out->rules    = (const void *)(blob.ptr + h->rules_off);
  out->backends = (const void *)(blob.ptr + h->backends_off);
  out->strings  = (const char *)(blob.ptr + h->strings_off);
  return ATSK_OK;
}

static bool
range_inside(uint32_t first, uint32_t n, uint32_t limit)
{
  return first <= limit && n <= limit - first;
}

/* A run of rules, or "none": ATSK_NONE with 0. */
static bool
rules_inside(uint32_t first, uint32_t n, uint32_t limit)
{
  return first == ATSK_NONE ? n == 0 : n > 0 && range_inside(first, n, limit);
}

/* Order of siblings: as memcmp, and a prefix before what it is a prefix of. */
static int
segment_compare(const char *a, size_t a_len, const char *b, size_t b_len)
{
  size_t shorter = a_len < b_len ? a_len : b_len;
  int order      = shorter == 0 ? 0 : memcmp(a, b, shorter);
  return order != 0 ? order : (a_len > b_len) - (a_len < b_len);
}

static enum atsk_status
siblings_check(const struct sections *s, uint32_t first, uint32_t n)
{
  for (uint32_t i = first; i - first < n; i++) {
    const struct atsk_blob_str *segment = &s->nodes[i].segment;
    if (!range_inside(segment->off, segment->len, s->header->strings_size)) {
      return ATSK_E_TRUNCATED;
    }
    if (segment->len > 0 && memchr(s->strings + segment->off, '/', segment->len) != NULL) {
      return ATSK_E_RANGE;
    }
    if (i > first) {
      const struct atsk_blob_str *before = &s->nodes[i - 1].segment;
      if (segment_compare(s->strings + before->off, before->len, s->strings + segment->off, segment->len) >= 0) {
        return ATSK_E_ORDER;
      }
    }
  }
  return ATSK_OK;
}

/* The nodes are a tree, laid out breadth-first: each node's children are the next ones that no node before it has.  So every node
 * but the root has exactly one parent, with a smaller index, and one pass without memory proves it. */
static enum atsk_status
nodes_check(const struct sections *s)
{
  const struct atsk_blob_header *h = s->header;
  uint32_t next                    = 1; /* first node without a parent so far */
  uint32_t level_end               = 1; /* where the level under way ends */
  uint32_t depth                   = 0;
  if (s->nodes[0].segment.len != 0) {
    return ATSK_E_LAYOUT;
  }
  for (uint32_t i = 0; i < h->n_nodes; i++) {
    const struct atsk_blob_node *node = &s->nodes[i];
    if (i == level_end) {
      level_end = next;
      if (++depth > ATSK_DEPTH_MAX) {
        return ATSK_E_RANGE;
      }
    }
    if (i >= next) {
      return ATSK_E_ORDER; /* nothing leads here */
    }
    if (!rules_inside(node->exact_rule, node->n_exact, h->n_rules) ||
        !rules_inside(node->prefix_rule, node->n_prefix, h->n_rules)) {
      return ATSK_E_TRUNCATED;
    }
    if (node->n_children == 0) {
      if (node->first_child != 0) {
        return ATSK_E_LAYOUT;
      }
      continue;
    }
    if (node->first_child != next) {
      return ATSK_E_ORDER;
    }
    if (node->n_children > h->n_nodes - next) {
      return ATSK_E_TRUNCATED;
    }
    enum atsk_status st = siblings_check(s, next, node->n_children);
    if (st != ATSK_OK) {
      return st;
    }
    next += node->n_children;
  }
  return ATSK_OK;
}

static enum atsk_status
rules_check(const struct sections *s)
{
  const struct atsk_blob_header *h = s->header;
  for (uint32_t i = 0; i < h->n_rules; i++) {
    const struct atsk_blob_rule *rule = &s->rules[i];
    if (rule->n_conditions != 0 || rule->first_condition != 0) {
      return ATSK_E_LAYOUT; /* a condition of a later version narrows the rule: serving it without would widen it */
    }
    if (rule->action > ATSK_ACTION_NO_BACKEND || (rule->action == ATSK_ACTION_FORWARD) != (rule->n_backends > 0)) {
      return ATSK_E_RANGE;
    }
    if (rule->route >= h->n_routes) {
      return ATSK_E_RANGE;
    }
    if (!range_inside(rule->first_backend, rule->n_backends, h->n_backends) ||
        !range_inside(rule->object.off, rule->object.len, h->strings_size) ||
        !range_inside(rule->path.off, rule->path.len, h->strings_size)) {
      return ATSK_E_TRUNCATED;
    }
  }
  for (uint32_t i = 0; i < h->n_backends; i++) {
    if (s->backends[i].service >= h->n_services || s->backends[i].weight == 0) {
      return ATSK_E_RANGE;
    }
  }
  return h->default_rule == ATSK_NONE || h->default_rule < h->n_rules ? ATSK_OK : ATSK_E_RANGE;
}

enum atsk_status
atsk_blob_validate(struct atsk_span blob)
{
  struct sections s   = {0};
  enum atsk_status st = header_check(blob, &s);
  if (st == ATSK_OK) {
    st = nodes_check(&s);
  }
  if (st == ATSK_OK) {
    st = rules_check(&s);
  }
  return st == ATSK_OK ? atsk_policies_validate(blob) : st;
}

const struct atsk_blob_header *
atsk_blob_header_view(struct atsk_span blob)
{
  return (const void *)blob.ptr;
}

const struct atsk_blob_rule *
atsk_blob_rule_at(struct atsk_span blob, uint32_t rule)
{
  return (const struct atsk_blob_rule *)(const void *)(blob.ptr + atsk_blob_header_view(blob)->rules_off) + rule;
}

const struct atsk_blob_backend *
atsk_blob_backend_at(struct atsk_span blob, uint32_t backend)
{
  return (const struct atsk_blob_backend *)(const void *)(blob.ptr + atsk_blob_header_view(blob)->backends_off) + backend;
}

struct atsk_str
atsk_blob_str_view(struct atsk_span blob, struct atsk_blob_str s)
{
  return (struct atsk_str){(const char *)(blob.ptr + atsk_blob_header_view(blob)->strings_off) + s.off, s.len};
}

/* The child of `node` with this segment, or NULL; log2(n_children) comparisons. */
static const struct atsk_blob_node *
child_find(const struct atsk_blob_node *nodes, const char *strings, const struct atsk_blob_node *node, const char *segment,
           size_t len)
{
  uint32_t low = node->first_child;
  uint32_t n   = node->n_children;
  while (n > 0) {
    uint32_t half                    = n / 2;
    const struct atsk_blob_node *mid = &nodes[low + half];
    int order                        = segment_compare(segment, len, strings + mid->segment.off, mid->segment.len);
    if (order == 0) {
      return mid;
    }
    if (order > 0) {
      low += half + 1;
      n -= half + 1;
    } else {
      n = half;
    }
  }
  return NULL;
}

enum atsk_status
atsk_blob_match(struct atsk_span blob, struct atsk_str path, uint32_t *rule)
{
  const struct atsk_blob_header *h   = atsk_blob_header_view(blob);
  const struct atsk_blob_node *nodes = (const void *)(blob.ptr + h->nodes_off);
  const char *strings                = (const char *)(blob.ptr + h->strings_off);
  const struct atsk_blob_node *node  = nodes;
  const char *end                    = path.ptr + path.len;
  const char *at                     = path.ptr; /* the slash before the next segment, or `end` */
  uint32_t best                      = node->prefix_rule;

  if (path.len == 0 || path.ptr[0] != '/') {
    at   = end; /* no path ("*"): not even the root's prefix, which is "/", is one of it */
    best = ATSK_NONE;
  }
  while (at < end && node->n_children > 0) {
    const char *segment = at + 1;
    for (at = segment; at < end && *at != '/'; at++) {
    }
    node = child_find(nodes, strings, node, segment, (size_t)(at - segment));
    if (node == NULL) {
      break;
    }
    if (at == end && node->exact_rule != ATSK_NONE) {
      best = node->exact_rule;
    } else if (node->prefix_rule != ATSK_NONE) {
      best = node->prefix_rule;
    }
  }
  if (best == ATSK_NONE) {
    best = h->default_rule;
  }
  if (best == ATSK_NONE) {
    return ATSK_MISS;
  }
  *rule = best;
  return ATSK_OK;
}
