/* Builds a virtual host's blob from a list of paths, slowly and obviously: a second writer of the format beside
 * atsk8s/compile/encode.py, for tests and benchmarks in C. */
#ifndef ATSK_TESTS_BLOBS_H
#define ATSK_TESTS_BLOBS_H

#include "base/atsk_base.h"
#include "blob/atsk_format.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct blob_path {
  const char *path; /* starts with '/' */
  bool is_exact;    /* else a prefix */
  uint32_t service; /* ATSK_NONE: no backend */
};

struct blob_draft_node {
  const char *segment;
  size_t len;
  uint32_t parent, exact, prefix, place;
};

static inline int
blob_segment_order(const struct blob_draft_node *a, const struct blob_draft_node *b)
{
  size_t shorter = a->len < b->len ? a->len : b->len;
  int order      = memcmp(a->segment, b->segment, shorter);
  return order != 0 ? order : (a->len > b->len) - (a->len < b->len);
}

/* The blob of `n_paths` rules (rule i is path i, route i), and one more rule with service `default_service` unless that is
 * ATSK_NONE.  Freed by the caller; never NULL. */
static inline struct atsk_span
blob_build(const struct blob_path *paths, uint32_t n_paths, uint32_t default_service, uint32_t n_services)
{
  size_t n_max = 1, text = 0;
  for (uint32_t i = 0; i < n_paths; i++) {
    text += strlen(paths[i].path);
  }
  n_max += text + n_paths;
  struct blob_draft_node *draft = calloc(n_max, sizeof *draft);
  uint32_t *order               = calloc(n_max, sizeof *order);
  uint32_t n_nodes              = 1;
  draft[0] = (struct blob_draft_node){.segment = "", .parent = ATSK_NONE, .exact = ATSK_NONE, .prefix = ATSK_NONE};
  for (uint32_t i = 0; i < n_paths; i++) {
    const char *at = paths[i].path;
    size_t left    = strlen(at);
    uint32_t node  = 0;
    if (!paths[i].is_exact && at[left - 1] == '/') {
      left--; /* a prefix's trailing slash says nothing */
    }
    const char *end = at + left;
    while (at < end) {
      const char *segment = ++at;
      while (at < end && *at != '/') {
        at++;
      }
      struct blob_draft_node want = {segment, (size_t)(at - segment), node, ATSK_NONE, ATSK_NONE, 0};
      uint32_t child              = 1;
      while (child < n_nodes && (draft[child].parent != node || blob_segment_order(&draft[child], &want) != 0)) {
        child++;
      }
      if (child == n_nodes) {
        draft[n_nodes++] = want;
      }
      node = child;
    }
    uint32_t *rule = paths[i].is_exact ? &draft[node].exact : &draft[node].prefix;
    *rule          = *rule == ATSK_NONE ? i : *rule;
  }
  uint32_t n_rules = n_paths + (default_service != ATSK_NONE);
  size_t strings   = sizeof(struct atsk_blob_header) + n_nodes * sizeof(struct atsk_blob_node) +
                   n_rules * (sizeof(struct atsk_blob_rule) + sizeof(struct atsk_blob_backend));
  size_t strings_max                 = text * 2 + 16;
  size_t total                       = (strings + strings_max + 7) / 8 * 8;
  uint8_t *bytes                     = calloc(1, total);
  struct atsk_blob_header *h         = (void *)bytes;
  struct atsk_blob_node *nodes       = (void *)(h + 1);
  struct atsk_blob_rule *rules       = (void *)(nodes + n_nodes);
  struct atsk_blob_backend *backends = (void *)(rules + n_rules);
  char *text_at                      = (char *)bytes + strings;
  uint32_t n_text = 0, n_placed = 1;
  memcpy(text_at, "ns/test", 7);
  n_text = 7;
  for (uint32_t i = 0; i < n_placed; i++) { /* breadth-first: order[i] is the draft of node i */
    const struct blob_draft_node *from = &draft[order[i]];
    uint32_t first                     = n_placed;
    for (uint32_t c = 1; c < n_nodes; c++) {
      if (draft[c].parent != order[i]) {
        continue;
      }
      uint32_t at = n_placed++;
      for (; at > first && blob_segment_order(&draft[order[at - 1]], &draft[c]) > 0; at--) {
        order[at] = order[at - 1];
      }
      order[at] = c;
    }
    nodes[i] = (struct atsk_blob_node){.segment     = {n_text, (uint32_t)from->len},
                                       .first_child = n_placed > first ? first : 0,
                                       .n_children  = n_placed - first,
                                       .exact_rule  = from->exact,
                                       .n_exact     = from->exact != ATSK_NONE,
                                       .prefix_rule = from->prefix,
                                       .n_prefix    = from->prefix != ATSK_NONE};
    memcpy(text_at + n_text, from->segment, from->len);
    n_text += (uint32_t)from->len;
  }
  uint32_t n_backends = 0;
  for (uint32_t i = 0; i < n_rules; i++) {
    const char *path = i < n_paths ? paths[i].path : "";
    uint32_t service = i < n_paths ? paths[i].service : default_service;
    rules[i]         = (struct atsk_blob_rule){.action        = service == ATSK_NONE ? ATSK_ACTION_NO_BACKEND : ATSK_ACTION_FORWARD,
                                               .route         = i,
                                               .first_backend = n_backends,
                                               .n_backends    = service != ATSK_NONE,
                                               .object        = {0, 7},
                                               .path          = {n_text, (uint32_t)strlen(path)}};
    memcpy(text_at + n_text, path, strlen(path));
    n_text += (uint32_t)strlen(path);
    if (service != ATSK_NONE) {
      backends[n_backends++] = (struct atsk_blob_backend){service, 1};
    }
  }
  *h            = (struct atsk_blob_header){.magic        = ATSK_BLOB_MAGIC,
                                            .version      = ATSK_BLOB_VERSION,
                                            .header_size  = sizeof *h,
                                            .n_nodes      = n_nodes,
                                            .n_rules      = n_rules,
                                            .n_backends   = n_backends,
                                            .nodes_off    = (uint32_t)((uint8_t *)nodes - bytes),
                                            .rules_off    = (uint32_t)((uint8_t *)rules - bytes),
                                            .backends_off = (uint32_t)((uint8_t *)backends - bytes),
                                            .policies_off = (uint32_t)strings,
                                            .strings_off  = (uint32_t)strings,
                                            .strings_size = n_text,
                                            .default_rule = default_service == ATSK_NONE ? ATSK_NONE : n_paths,
                                            .n_services   = n_services,
                                            .n_routes     = n_rules};
  h->total_size = (uint32_t)((strings + n_text + 7) / 8 * 8);
  free(draft);
  free(order);
  return (struct atsk_span){bytes, h->total_size};
}

#endif
