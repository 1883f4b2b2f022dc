/* The persistent host trie.  Lookup: any thread, inside a read section, no allocation.  Edits: the single writer.
 *
 * A node stands for a label below its parent's.  Its children are a tagged word: none, one node, or a hash array mapped trie
 * (HAMT) of 64-way branches indexed by six bits of the label's keyed hash at a time.  A branch has a bitmap of the slots that are
 * there, and just those.
 *
 * Path copying.  An edit has a number greater than that of any edit before it on this trie (the root carries the last one's).  What it
 * makes is stamped with the number: a stamped object is the edit's own, is reachable from own objects alone, and is changed in
 * place.  Anything else belongs to a published version: it is copied before its copy is changed, and becomes garbage.  Copying
 * alone changes no meaning, so an edit that runs out of memory halfway up a path is as good as before the call. */
#include "table/trie.h"

#include "base/retire.h"
#include "base/siphash.h"
#include "table/trie_nodes.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Takes the last label off `host`; an IP literal in brackets is one label, whatever dots are in it. */
static struct atsk_str
label_take(struct atsk_str *host)
{
  size_t start = host->len;
  if (host->ptr[0] == '[') {
    start = 0;
  } else {
    while (start > 0 && host->ptr[start - 1] != '.') {
      start--;
    }
  }
  struct atsk_str label = {host->ptr + start, host->len - start};
  host->len             = start == 0 ? 0 : start - 1;
  return label;
}

/* --- lookup -------------------------------------------------------------------------------------------------------------- */

/* The key in the root's label, which is aligned for bytes only. */
static struct atsk_siphash_key
root_key(const struct atsk_trie_node *root)
{
  struct atsk_siphash_key key;
  memcpy(&key, root->label, sizeof key);
  return key;
}

/* Which of a node's two values. */
enum { HALF_VHOST = 0, HALF_TLS = 1 };

static struct atsk_trie_value
value_of(void *const halves[2])
{
  return (struct atsk_trie_value){halves[HALF_VHOST], halves[HALF_TLS]};
}

void
atsk_trie_lookup(const struct atsk_trie_node *root, struct atsk_str host, struct atsk_trie_value *exact,
                 struct atsk_trie_value *wildcard)
{
  *exact    = (struct atsk_trie_value){NULL, NULL};
  *wildcard = (struct atsk_trie_value){NULL, NULL};
  if (root == NULL || host.len == 0) {
    return;
  }
  const struct atsk_siphash_key key = root_key(root);
  const struct atsk_trie_node *node = root;
  while (host.len > 0) { /* at most ATSK_LABELS_MAX times: the trie is no deeper */
    const struct atsk_trie_node *parent = node;
    struct atsk_str label               = label_take(&host);
    node                                = atsk_trie_child_find(parent, &key, label);
    if (host.len == 0) {
      *wildcard = value_of(parent->wildcard);
    }
    if (node == NULL) {
      return;
    }
  }
  *exact = value_of(node->exact);
}

/* What a walk over all of a trie carries along. */
struct walk {
  bool (*visit)(void *context, struct atsk_str host, enum atsk_host_kind kind, const struct atsk_trie_value *value);
  void *context;
  char host[ATSK_HOST_MAX]; /* written from its end: labels come last first */
};

static bool
value_visit(const struct walk *walk, size_t start, enum atsk_host_kind kind, void *const halves[2])
{
  const struct atsk_str host         = {walk->host + start, sizeof walk->host - start};
  const struct atsk_trie_value value = value_of(halves);
  return (value.vhost == NULL && value.tls == NULL) || walk->visit(walk->context, host, kind, &value);
}

/* Visits the subtree in `s`, whose parents' labels begin at `start`.  Recursion: labels times hash steps deep. */
static bool
slot_visit(struct walk *walk, slot s, size_t start)
{
  if (s == 0) {
    return true;
  }
  if (slot_is_branch(s)) {
    const struct branch *branch = slot_branch(s);
    unsigned n                  = count_bits(branch->bitmap);
    for (unsigned i = 0; i < n; i++) {
      if (!slot_visit(walk, branch->slots[i], start)) {
        return false;
      }
    }
    return true;
  }
  const struct atsk_trie_node *node = slot_node(s);
  if (start < sizeof walk->host) {
    walk->host[--start] = '.'; /* room is there: no host longer than the array was ever taken in */
  }
  start -= node->label_len;
  memcpy(walk->host + start, node->label, node->label_len);
  return value_visit(walk, start, ATSK_HOST_EXACT, node->exact) && value_visit(walk, start, ATSK_HOST_WILDCARD, node->wildcard) &&
         slot_visit(walk, node->children, start);
}

bool
atsk_trie_each(const struct atsk_trie_node *root,
               bool (*visit)(void *context, struct atsk_str host, enum atsk_host_kind kind, const struct atsk_trie_value *value),
               void *context)
{
  struct walk walk = {.visit = visit, .context = context};
  return root == NULL || slot_visit(&walk, root->children, sizeof walk.host);
}

/* --- edits ----------------------------------------------------------------------------------------------------------------- */

struct atsk_trie_edit *
atsk_trie_edit_begin(const struct atsk_trie_node *root)
{
  struct atsk_trie_edit *edit = malloc(sizeof *edit);
  if (edit == NULL) {
    return NULL;
  }
  edit->root    = (struct atsk_trie_node *)(uintptr_t)root; /* never written through while it is not own */
  edit->garbage = NULL;
  if (root != NULL) {
    edit->number = root->stamp.edit + 1;
    edit->key    = root_key(root);
  } else {
    edit->number = 1;
    if (getrandom(&edit->key, sizeof edit->key, 0) != (ssize_t)sizeof edit->key) {
      free(edit); /* no such system call: a guessable key would be worse than no table */
      return NULL;
    }
  }
  return edit;
}

/* The labels of a host, last first. */
struct labels {
  unsigned n;
  struct atsk_str items[ATSK_LABELS_MAX];
};

static bool
labels_split(struct atsk_str host, struct labels *out)
{
  out->n = 0;
  if (host.len > ATSK_HOST_MAX || host.len == 0 || host.ptr[0] == '.') {
    return false;
  }
  while (host.len > 0) {
    struct atsk_str label = label_take(&host);
    if (label.len == 0 || label.len > ATSK_LABEL_MAX || out->n == ATSK_LABELS_MAX) {
      return false;
    }
    out->items[out->n++] = label;
  }
  return true;
}

/* One value's place: which host, which of its two values, which half of that. */
struct place {
  struct labels labels;
  enum atsk_host_kind kind;
  bool is_tls;
};

static void **
value_half(struct atsk_trie_node *node, const struct place *place)
{
  void **halves = place->kind == ATSK_HOST_EXACT ? node->exact : node->wildcard;
  return &halves[place->is_tls ? HALF_TLS : HALF_VHOST];
}

static bool
node_leads_nowhere(const struct atsk_trie_node *node)
{
  return node->children == 0 && node->exact[HALF_VHOST] == NULL && node->exact[HALF_TLS] == NULL &&
         node->wildcard[HALF_VHOST] == NULL && node->wildcard[HALF_TLS] == NULL;
}

/* A chain of own nodes for labels[from..n), each the only child of the one before; the last gets `value`. */
static struct atsk_trie_node *
chain_create(const struct atsk_trie_edit *edit, const struct place *place, unsigned from, void *value)
{
  struct atsk_trie_node *top = NULL;
  for (unsigned i = place->labels.n; i-- > from;) {
    struct atsk_trie_node *node = atsk_trie_node_create(edit, place->labels.items[i]);
    if (node == NULL) {
      while (top != NULL) {
        struct atsk_trie_node *below = slot_node(top->children);
        free(top);
        top = below;
      }
      return NULL;
    }
    if (top == NULL) {
      *value_half(node, place) = value;
    } else {
      node->children = node_slot(top);
    }
    top = node;
  }
  return top;
}

static bool
root_own(struct atsk_trie_edit *edit)
{
  struct atsk_trie_node *root;
  if (edit->root != NULL) {
    root = atsk_trie_node_own(edit, edit->root, true);
  } else {
    char key[sizeof edit->key];
    memcpy(key, &edit->key, sizeof key);
    root = atsk_trie_node_create(edit, (struct atsk_str){key, sizeof key});
    if (root != NULL) {
      root->label_len = 0;
    }
  }
  if (root != NULL) {
    edit->root = root;
  }
  return root != NULL;
}

/* Takes away what leads nowhere at the end of path[0..n]: own nodes, with own branches above them. */
static void
path_prune(struct atsk_trie_edit *edit, struct atsk_trie_node **path, const struct labels *labels, unsigned n)
{
  for (; n > 0 && node_leads_nowhere(path[n]); n--) {
    atsk_trie_child_remove(edit, path[n - 1], labels->items[n - 1]);
    free(path[n]);
  }
  if (n == 0 && node_leads_nowhere(path[0])) {
    free(path[0]);
    edit->root = NULL;
  }
}

static enum atsk_status
value_set(struct atsk_trie_edit *edit, const struct place *place, void *value, void **former)
{
  const struct labels *labels = &place->labels;
  if (value == NULL) { /* what is not there is not copied */
    const struct atsk_trie_node *node = edit->root;
    for (unsigned i = 0; node != NULL && i < labels->n; i++) {
      node = atsk_trie_child_find(node, &edit->key, labels->items[i]);
    }
    if (node == NULL || *value_half((struct atsk_trie_node *)(uintptr_t)node, place) == NULL) {
      *former = NULL;
      return ATSK_OK;
    }
  }
  if (!root_own(edit)) {
    return ATSK_E_NOMEM;
  }
  struct atsk_trie_node *path[ATSK_LABELS_MAX + 1];
  path[0] = edit->root;
  for (unsigned i = 0; i < labels->n; i++) {
    if (atsk_trie_child_find(path[i], &edit->key, labels->items[i]) == NULL) {
      struct atsk_trie_node *chain = chain_create(edit, place, i, value);
      if (chain == NULL || !atsk_trie_child_insert(edit, path[i], chain)) {
        while (chain != NULL) {
          struct atsk_trie_node *below = slot_node(chain->children);
          free(chain);
          chain = below;
        }
        path_prune(edit, path, labels, i); /* of an empty trie: the root just made */
        return ATSK_E_NOMEM;
      }
      *former = NULL;
      return ATSK_OK;
    }
    slot *at = atsk_trie_child_slot_own(edit, path[i], labels->items[i]);
    if (at == NULL) {
      return ATSK_E_NOMEM;
    }
    struct atsk_trie_node *own = atsk_trie_node_own(edit, slot_node(*at), false);
    if (own == NULL) {
      return ATSK_E_NOMEM;
    }
    *at         = node_slot(own);
    path[i + 1] = own;
  }
  void **half = value_half(path[labels->n], place);
  *former     = *half;
  *half       = value;
  path_prune(edit, path, labels, labels->n);
  return ATSK_OK;
}

enum atsk_status
atsk_trie_edit_vhost(struct atsk_trie_edit *edit, struct atsk_str host, enum atsk_host_kind kind,
                     struct atsk_published_vhost *vhost, struct atsk_published_vhost **former)
{
  struct place place = {.kind = kind, .is_tls = false};
  if (!labels_split(host, &place.labels)) {
    return ATSK_E_HOST;
  }
  void *was           = NULL;
  enum atsk_status st = value_set(edit, &place, vhost, &was);
  if (st == ATSK_OK) {
    *former = was;
  }
  return st;
}

enum atsk_status
atsk_trie_edit_tls(struct atsk_trie_edit *edit, struct atsk_str host, enum atsk_host_kind kind, struct atsk_tls_policy *tls,
                   struct atsk_tls_policy **former)
{
  struct place place = {.kind = kind, .is_tls = true};
  if (!labels_split(host, &place.labels)) {
    return ATSK_E_HOST;
  }
  void *was           = NULL;
  enum atsk_status st = value_set(edit, &place, tls, &was);
  if (st == ATSK_OK) {
    *former = was;
  }
  return st;
}

struct atsk_trie_value
atsk_trie_edit_value(const struct atsk_trie_edit *edit, struct atsk_str host, enum atsk_host_kind kind)
{
  const struct atsk_trie_node *node = edit->root;
  while (node != NULL && host.len > 0) {
    node = atsk_trie_child_find(node, &edit->key, label_take(&host));
  }
  if (node == NULL) {
    return (struct atsk_trie_value){NULL, NULL};
  }
  return value_of(kind == ATSK_HOST_EXACT ? node->exact : node->wildcard);
}

const struct atsk_trie_node *
atsk_trie_edit_finish(struct atsk_trie_edit *edit, struct atsk_trie_garbage **garbage)
{
  const struct atsk_trie_node *root = edit->root;
  *garbage                          = edit->garbage;
  free(edit);
  return root;
}

void
atsk_trie_edit_drop(struct atsk_trie_edit *edit)
{
  if (edit == NULL) {
    return;
  }
  atsk_trie_slot_free(node_slot(edit->root), edit->number);
  while (edit->garbage != NULL) { /* live again; this edit's number, which no object has any more, keeps the root's the greatest */
    struct atsk_trie_garbage *garbage = edit->garbage;
    edit->garbage                     = garbage->stamp.next;
    garbage->stamp.edit               = edit->number;
  }
  free(edit);
}

void
atsk_trie_garbage_free(struct atsk_trie_garbage *garbage)
{
  while (garbage != NULL) {
    struct atsk_trie_garbage *next = garbage->stamp.next;
    atsk_reclaim_memory(garbage);
    garbage = next;
  }
}

void
atsk_trie_free_all(const struct atsk_trie_node *root)
{
  atsk_trie_slot_free(node_slot(root), 0);
}
