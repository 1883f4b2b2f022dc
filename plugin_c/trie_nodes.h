/* Nodes of the host trie and the hash array mapped tries (HAMT) of their children: layout, search, path copying.  Included by trie.c
 * alone, whose head tells the idea; no atomics, no I/O. */
#ifndef ATSK_TRIE_NODES_H
#define ATSK_TRIE_NODES_H

#include "retire.h"
#include "siphash.h"
#include "trie.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define HASH_STEP 6u /* bits of the hash that one branch looks at */
#define HASH_BITS 64u
#ifndef ATSK_TRIE_HASH_MASK
#define ATSK_TRIE_HASH_MASK UINT64_MAX /* tests keep few bits, to make collisions */
#endif

/* What nodes and branches begin with.  Readers never look at it. */
struct stamp {
  union {
    uint64_t edit;                  /* live: the edit that made it */
    struct atsk_trie_garbage *next; /* garbage */
  };
};

struct atsk_trie_garbage {
  struct stamp stamp;
};

/* Tagged: 0 none; else a struct atsk_trie_node *, or with bit 0 set a struct branch *. */
typedef uintptr_t slot;

struct atsk_trie_node {
  struct stamp stamp;
  struct atsk_trie_value exact;
  struct atsk_trie_value wildcard; /* for hosts with one label more */
  slot children;
  uint8_t label_len;
  char label[]; /* the root's holds the hash key instead, so that every version carries its own and nothing is global */
};

struct branch {
  struct stamp stamp;
  uint64_t bitmap; /* which of the 64 slots are there; of a bucket: how many, as bits from 0 */
  slot slots[];
};

/* Below the last hash bit stands a bucket: nodes whose 64 hash bits are all equal, searched one by one. */

struct atsk_trie_edit {
  struct atsk_trie_node *root; /* own, or the published one while nothing was changed; NULL: empty */
  struct atsk_trie_garbage *garbage;
  uint64_t number;
  struct atsk_siphash_key key;
};

static inline const struct branch *
slot_branch(slot s)
{
  return (const struct branch *)(s & ~(uintptr_t)1);
}

static inline struct branch *
slot_branch_own(slot s)
{
  return (struct branch *)(s & ~(uintptr_t)1);
}

static inline bool
slot_is_branch(slot s)
{
  return (s & 1) != 0;
}

static inline struct atsk_trie_node *
slot_node(slot s)
{
  return (struct atsk_trie_node *)s;
}

static inline slot
node_slot(const struct atsk_trie_node *node)
{
  return (slot)node;
}

static inline slot
branch_slot(const struct branch *branch)
{
  return (slot)branch | 1;
}

/* Bits set; the compiler's own calls a library function where the popcnt instruction cannot be assumed. */
static inline unsigned
count_bits(uint64_t x)
{
#if defined(__POPCNT__)
  return (unsigned)__builtin_popcountll(x);
#else
  x -= x >> 1 & UINT64_C(0x5555555555555555);
  x = (x & UINT64_C(0x3333333333333333)) + (x >> 2 & UINT64_C(0x3333333333333333));
  x = (x + (x >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
  return (unsigned)(x * UINT64_C(0x0101010101010101) >> 56);
#endif
}

static inline uint64_t
hash_bit(uint64_t hash, unsigned shift)
{
  return UINT64_C(1) << (hash >> shift & 63u);
}

static inline unsigned
slot_index(const struct branch *branch, uint64_t bit)
{
  return count_bits(branch->bitmap & (bit - 1));
}

static inline uint64_t
label_hash(const struct atsk_siphash_key *key, struct atsk_str label)
{
  return atsk_siphash(key, label.ptr, label.len) & ATSK_TRIE_HASH_MASK;
}

static inline bool
label_equal(const struct atsk_trie_node *node, struct atsk_str label)
{
  return node->label_len == label.len && memcmp(node->label, label.ptr, label.len) == 0;
}

static inline const struct atsk_trie_node *
child_find(const struct atsk_trie_node *node, const struct atsk_siphash_key *key, struct atsk_str label)
{
  slot s = node->children;
  if (slot_is_branch(s)) { /* an only child is compared without a hash */
    uint64_t hash  = label_hash(key, label);
    unsigned shift = 0;
    do {
      const struct branch *branch = slot_branch(s);
      if (shift >= HASH_BITS) {
        unsigned n = count_bits(branch->bitmap);
        for (unsigned i = 0; i < n; i++) {
          if (label_equal(slot_node(branch->slots[i]), label)) {
            return slot_node(branch->slots[i]);
          }
        }
        return NULL;
      }
      uint64_t bit = hash_bit(hash, shift);
      if ((branch->bitmap & bit) == 0) {
        return NULL;
      }
      s = branch->slots[slot_index(branch, bit)];
      shift += HASH_STEP;
    } while (slot_is_branch(s));
  }
  const struct atsk_trie_node *child = slot_node(s);
  return child != NULL && label_equal(child, label) ? child : NULL;
}

/* --- making and copying --------------------------------------------------------------------------------------------------- */

static inline size_t
node_size(size_t label_len)
{
  return offsetof(struct atsk_trie_node, label) + label_len;
}

static inline struct atsk_trie_node *
node_create(const struct atsk_trie_edit *edit, struct atsk_str label)
{
  /* Never less than the struct itself: the compiler may copy it whole, padding included. */
  size_t size                 = node_size(label.len);
  struct atsk_trie_node *node = malloc(size < sizeof *node ? sizeof *node : size);
  if (node == NULL) {
    return NULL;
  }
  node->stamp.edit = edit->number;
  node->exact      = (struct atsk_trie_value){NULL, NULL};
  node->wildcard   = (struct atsk_trie_value){NULL, NULL};
  node->children   = 0;
  node->label_len  = (uint8_t)label.len;
  memcpy(node->label, label.ptr, label.len);
  return node;
}

static inline struct branch *
branch_create(const struct atsk_trie_edit *edit, uint64_t bitmap)
{
  struct branch *branch = malloc(sizeof *branch + count_bits(bitmap) * sizeof(slot));
  if (branch != NULL) {
    branch->stamp.edit = edit->number;
    branch->bitmap     = bitmap;
  }
  return branch;
}

static inline void
garbage_add(struct atsk_trie_edit *edit, struct stamp *stamp)
{
  struct atsk_trie_garbage *garbage = (struct atsk_trie_garbage *)stamp;
  garbage->stamp.next               = edit->garbage;
  edit->garbage                     = garbage;
}

/* Makes *at, which holds `node` and is itself own, hold an own copy of it.  NULL: no memory, nothing changed. */
static inline struct atsk_trie_node *
node_own(struct atsk_trie_edit *edit, struct atsk_trie_node *node, bool is_root)
{
  if (node->stamp.edit == edit->number) {
    return node;
  }
  struct atsk_str label       = {node->label, is_root ? sizeof edit->key : node->label_len};
  struct atsk_trie_node *copy = node_create(edit, label);
  if (copy == NULL) {
    return NULL;
  }
  copy->exact     = node->exact;
  copy->wildcard  = node->wildcard;
  copy->children  = node->children;
  copy->label_len = node->label_len;
  garbage_add(edit, &node->stamp);
  return copy;
}

static inline struct branch *
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
static inline bool
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
static inline slot
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

/* The slot under own `parent` that holds the child `label`, every branch above it made own; NULL: no memory.  The child is known
 * to be there. */
static inline slot *
child_slot_own(struct atsk_trie_edit *edit, struct atsk_trie_node *parent, struct atsk_str label)
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

/* Puts `child`, whose label is not there yet, under own `parent`.  false: no memory, nothing changed in meaning. */
static inline bool
child_insert(struct atsk_trie_edit *edit, struct atsk_trie_node *parent, struct atsk_trie_node *child)
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

/* Takes the child in slot `label` away, all of whose branches are own (child_slot_own() was called); a branch left with one node is
 * replaced by it, so that equal sets of children have equal shapes. */
static inline void
child_remove(struct atsk_trie_edit *edit, slot *at, uint64_t hash, struct atsk_str label, unsigned shift)
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
    child_remove(edit, &branch->slots[index], hash, label, shift + HASH_STEP); /* recursion: at most 12 deep */
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

#endif
