/* Nodes of the host trie and the hash array mapped tries (HAMT) of their children: layout, search, path copying.  Made for trie.c,
 * whose head tells the idea, and below it: what a node's values point to is not looked at here.  No atomics, no I/O. */
#ifndef ATSK_TRIE_NODES_H
#define ATSK_TRIE_NODES_H

#include "base/atsk_base.h"
#include "base/siphash.h"

#include <stdbool.h>
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
  void *exact[2];    /* the host's two values: NULL, or what trie.c put there */
  void *wildcard[2]; /* likewise for hosts with one label more */
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
atsk_trie_child_find(const struct atsk_trie_node *node, const struct atsk_siphash_key *key, struct atsk_str label)
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

/* --- making, copying, removing: the single writer --------------------------------------------------------------------------- */

/* A node of the edit's own without values or children; copies `label`.  NULL: no memory.  The caller's, free() ends it. */
struct atsk_trie_node *atsk_trie_node_create(const struct atsk_trie_edit *edit, struct atsk_str label);

/* `node` if it is the edit's own, else an own copy, which the caller puts in its place; `node` is the edit's garbage then.  NULL: no
 * memory, nothing changed. */
struct atsk_trie_node *atsk_trie_node_own(struct atsk_trie_edit *edit, struct atsk_trie_node *node, bool is_root);

/* The slot under own `parent` that holds the child `label`, every branch above it made own; NULL: no memory.  The child is known
 * to be there.  Borrowed: valid until the children of `parent` change. */
slot *atsk_trie_child_slot_own(struct atsk_trie_edit *edit, struct atsk_trie_node *parent, struct atsk_str label);

/* Puts `child`, whose label is not there yet, under own `parent`, and takes it.  false: no memory, nothing changed in meaning, and
 * `child` is still the caller's. */
bool atsk_trie_child_insert(struct atsk_trie_edit *edit, struct atsk_trie_node *parent,
                            struct atsk_trie_node *child) ATSK_MUST_CHECK;

/* Takes the child `label` of own `parent` away, to all of which atsk_trie_child_slot_own() leads; it is the caller's then.  A branch
 * left with one node is replaced by it, so that equal sets of children have equal shapes.  Cannot fail. */
void atsk_trie_child_remove(struct atsk_trie_edit *edit, struct atsk_trie_node *parent, struct atsk_str label);

/* Frees the subtree in `s`: all of it, or, with `number` not 0, what that edit made.  Recursion: labels times hash steps deep. */
void atsk_trie_slot_free(slot s, uint64_t number);

#endif
