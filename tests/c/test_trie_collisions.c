/* flags: -DATSK_TRIE_HASH_MASK=0xF000000000000003
 * The trie again, with six bits of the hash left, so that most labels collide to the last bit and live in buckets. */
#include "test_trie.c"
