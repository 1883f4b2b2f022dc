/* The writer's half of the trie's nodes: making, copying, removing.  The single writer's thread; search is in the header. */
#include "table/trie_nodes.h"

#include <stdlib.h>
#include <string.h>

/* --- making and copying --------------------------------------------------------------------------------------------------- */

static size_t
node_size(size_t label_len)
{
  return offsetof(struct atsk_trie_node, label) + label_len;
}

struct atsk_trie_node *
atsk_trie_node_create(const struct atsk_trie_edit *edit, struct atsk_str label)
{
  /* Never less than the struct itself: the compiler may copy it whole, padding included. */
  size_t size                 = node_size(label.len);
  struct atsk_trie_node *node = malloc(size < sizeof *node ? sizeof *node : size);
  if (node == NULL) {
    return NULL;
  }
  node->stamp.edit = edit->number;
  memset(node->exact, 0, sizeof node->exact);
  memset(node->wildcard, 0, sizeof node->wildcard);
  node->children  = 0;
  node->label_len = (uint8_t)label.len;
  memcpy(node->label, label.ptr, label.len);
  return node;
}

static struct branch *
branch_create(const struct atsk_trie_edit *edit, uint64_t bitmap)
{
  struct branch *branch = malloc(sizeof *branch + count_bits(bitmap) * sizeof(slot));
  if (branch != NULL) {
    branch->stamp.edit = edit->number;
    branch->bitmap     = bitmap;
  }
  return branch;
}

static void
garbage_add(struct atsk_trie_edit *edit, struct stamp *stamp)
{
  struct atsk_trie_garbage *garbage = (struct atsk_trie_garbage *)stamp;
  garbage->stamp.next               = edit->garbage;
  edit->garbage                     = garbage;
}

struct atsk_trie_node *
atsk_trie_node_own(struct atsk_trie_edit *edit, struct atsk_trie_node *node, bool is_root)
{
  if (node->stamp.edit == edit->number) {
    return node;
  }
  struct atsk_str label       = {node->label, is_root ? sizeof edit->key : node->label_len};
  struct atsk_trie_node *copy = atsk_trie_node_create(edit, label);
  if (copy == NULL) {
    return NULL;
  }
  memcpy(copy->exact, node->exact, sizeof copy->exact);
  memcpy(copy->wildcard, node->wildcard, sizeof copy->wildcard);
  copy->children  = node->children;
  copy->label_len = node->label_len;
  garbage_add(edit, &node->stamp);
  return copy;
}

static struct branch *
branch_own(struct atsk_trie_edit *edit, slot *at)
{
  struct branch *branch = slot_branch_own(*at);
  if (branch->stamp.edit == edit->number) {
    return branch;
  }
  struct branch *copy = branch_create(edit, branch->bitmap);
  if (copy == NULL) {
    return NULL;
  }
  memcpy(copy->slots, branch->slots, count_bits(branch->bitmap) * sizeof(slot));
  garbage_add(edit, &branch->stamp);
  *at = branch_slot(copy);
  return copy;
}

/* Replaces *at, which is own, by a branch with one slot more at `index`; the former is freed or becomes garbage. */
static bool
branch_grow(struct atsk_trie_edit *edit, slot *at, uint64_t bit, unsigned index, slot added)
{
  struct branch *branch = slot_branch_own(*at);
  unsigned n            = count_bits(branch->bitmap);
  struct branch *copy   = branch_create(edit, branch->bitmap | bit);
  if (copy == NULL) {
    return false;
  }
  memcpy(copy->slots, branch->slots, index * sizeof(slot));
  copy->slots[index] = added;
  memcpy(copy->slots + index + 1, branch->slots + index, (n - index) * sizeof(slot));
  if (branch->stamp.edit == edit->number) {
    free(branch);
  } else {
    garbage_add(edit, &branch->stamp);
  }
  *at = branch_slot(copy);
  return true;
}

/* A subtree of branches, from hash bit `shift` on, that holds just these two nodes; 0: no memory.  A chain as long as their
 * hashes agree. */
static slot
branch_pair(const struct atsk_trie_edit *edit, slot a, uint64_t a_hash, slot b, uint64_t b_hash, unsigned shift)
{
  if (shift >= HASH_BITS) {
    struct branch *bucket = branch_create(edit, 3);
    if (bucket == NULL) {
      return 0;
    }
    bucket->slots[0] = a;
    bucket->slots[1] = b;
    return branch_slot(bucket);
  }
  uint64_t a_bit = hash_bit(a_hash, shift);
  uint64_t b_bit = hash_bit(b_hash, shift);
  slot below     = 0;
  if (a_bit == b_bit) {
    below = branch_pair(edit, a, a_hash, b, b_hash, shift + HASH_STEP); /* recursion: at most 11 deep */
    if (below == 0) {
      return 0;
    }
  }
  struct branch *branch = branch_create(edit, a_bit | b_bit);
  if (branch == NULL) {
    while (below != 0) { /* the chain made so far: own, and its nodes are not */
      struct branch *chain = slot_branch_own(below);
      below                = count_bits(chain->bitmap) == 1 ? chain->slots[0] : 0;
      free(chain);
    }
    return 0;
  }
  if (below != 0) {
    branch->slots[0] = below;
  } else {
    branch->slots[a_bit < b_bit ? 0 : 1] = a;
    branch->slots[a_bit < b_bit ? 1 : 0] = b;
  }
  return branch_slot(branch);
}

/* --- children of an own node ----------------------------------------------------------------------------------------------- */

slot *
atsk_trie_child_slot_own(struct atsk_trie_edit *edit, struct atsk_trie_node *parent, struct atsk_str label)
{
  slot *at = &parent->children;
  if (!slot_is_branch(*at)) {
    return at;
  }
  uint64_t hash = label_hash(&edit->key, label);
  for (unsigned shift = 0; slot_is_branch(*at); shift += HASH_STEP) {
    struct branch *branch = branch_own(edit, at);
    if (branch == NULL) {
      return NULL;
    }
    unsigned index = 0;
    if (shift < HASH_BITS) {
      index = slot_index(branch, hash_bit(hash, shift));
    } else {
      while (!label_equal(slot_node(branch->slots[index]), label)) {
        index++;
      }
    }
    at = &branch->slots[index];
  }
  return at;
}

bool
atsk_trie_child_insert(struct atsk_trie_edit *edit, struct atsk_trie_node *parent, struct atsk_trie_node *child)
{
  slot *at = &parent->children;
  if (*at == 0) {
    *at = node_slot(child);
    return true;
  }
  uint64_t hash = label_hash(&edit->key, (struct atsk_str){child->label, child->label_len});
  for (unsigned shift = 0;; shift += HASH_STEP) {
    if (!slot_is_branch(*at)) {
      struct atsk_trie_node *there = slot_node(*at);
      uint64_t there_hash          = label_hash(&edit->key, (struct atsk_str){there->label, there->label_len});
      slot pair                    = branch_pair(edit, *at, there_hash, node_slot(child), hash, shift);
      if (pair != 0) {
        *at = pair;
      }
      return pair != 0;
    }
    const struct branch *branch = slot_branch(*at);
    if (shift >= HASH_BITS) {
      unsigned n = count_bits(branch->bitmap);
      return n < 64 && branch_grow(edit, at, UINT64_C(1) << n, n, node_slot(child));
    }
    uint64_t bit = hash_bit(hash, shift);
    if ((branch->bitmap & bit) == 0) {
      return branch_grow(edit, at, bit, slot_index(branch, bit), node_slot(child));
    }
    struct branch *own = branch_own(edit, at);
    if (own == NULL) {
      return false;
    }
    at = &own->slots[slot_index(own, bit)];
  }
}

/* The child in or below own *at, from hash bit `shift` on. */
static void
slot_remove(slot *at, uint64_t hash, struct atsk_str label, unsigned shift)
{
  if (!slot_is_branch(*at)) {
    *at = 0;
    return;
  }
  struct branch *branch = slot_branch_own(*at);
  unsigned n            = count_bits(branch->bitmap);
  unsigned index        = 0;
  uint64_t bit          = 0;
  if (shift < HASH_BITS) {
    bit   = hash_bit(hash, shift);
    index = slot_index(branch, bit);
    slot_remove(&branch->slots[index], hash, label, shift + HASH_STEP); /* recursion: at most 12 deep */
  } else {
    while (!label_equal(slot_node(branch->slots[index]), label)) {
      index++;
    }
    branch->slots[index] = 0;
    bit                  = UINT64_C(1) << (n - 1);
  }
  if (branch->slots[index] == 0) {
    memmove(branch->slots + index, branch->slots + index + 1, (n - index - 1) * sizeof(slot));
    branch->bitmap &= ~bit;
    n--;
  }
  if (n == 0 || (n == 1 && !slot_is_branch(branch->slots[0]))) {
    *at = n == 0 ? 0 : branch->slots[0];
    free(branch);
  }
}

void
atsk_trie_child_remove(struct atsk_trie_edit *edit, struct atsk_trie_node *parent, struct atsk_str label)
{
  slot_remove(&parent->children, label_hash(&edit->key, label), label, 0);
}

void
atsk_trie_slot_free(slot s, uint64_t number)
{
  if (s == 0) {
    return;
  }
  if (slot_is_branch(s)) {
    struct branch *branch = slot_branch_own(s);
    if (number == 0 || branch->stamp.edit == number) {
      unsigned n = count_bits(branch->bitmap);
      for (unsigned i = 0; i < n; i++) {
        atsk_trie_slot_free(branch->slots[i], number);
      }
      free(branch);
    }
    return;
  }
  struct atsk_trie_node *node = slot_node(s);
  if (number == 0 || node->stamp.edit == number) {
    atsk_trie_slot_free(node->children, number);
    free(node);
  }
}
