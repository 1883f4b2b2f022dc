/* Retired objects: unreachable for new readers, freed together a grace period later.  The link is a member of what is retired, so
 * that retiring allocates nothing and cannot fail.  Writer's thread makes the list, liburcu's reclaims it. */
#ifndef ATSK_RETIRE_H
#define ATSK_RETIRE_H

#include <stdlib.h>
#include <string.h>

#if defined(ATSK_POISON)
#include <malloc.h>
#endif

struct atsk_retired {
  struct atsk_retired *next;
  void (*reclaim)(struct atsk_retired *retired); /* frees the object; never blocks */
};

static inline void
atsk_retire(struct atsk_retired **list, struct atsk_retired *retired, void (*reclaim)(struct atsk_retired *))
{
  retired->reclaim = reclaim;
  retired->next    = *list;
  *list            = retired;
}

static inline void
atsk_reclaim_all(struct atsk_retired *list)
{
  while (list != NULL) {
    struct atsk_retired *next = list->next;
    list->reclaim(list);
    list = next;
  }
}

/* free() of what readers may have seen; the torture build makes a late reader notice. */
static inline void
atsk_reclaim_memory(void *memory)
{
#if defined(ATSK_POISON)
  if (memory != NULL) {
    memset(memory, 0xDB, malloc_usable_size(memory));
  }
#endif
  free(memory);
}

/* The object that a member belongs to. */
#define ATSK_OWNER_OF(member_ptr, type, member) ((type *)(void *)((char *)(member_ptr)-offsetof(type, member)))

#endif
