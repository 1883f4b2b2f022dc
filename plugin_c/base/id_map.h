/* The writer's map from a 64-bit id to a pointer: open addressing, linear probing, removal by shifting back.  Writer's thread only;
 * the ids come from our own compiler, so the mix needs to spread, not to resist. */
#ifndef ATSK_ID_MAP_H
#define ATSK_ID_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct atsk_id_entry {
  uint64_t id;
  void *value; /* NULL: empty */
};

struct atsk_id_map { /* all zero: empty */
  struct atsk_id_entry *entries;
  size_t capacity; /* 0 or a power of two */
  size_t n;
};

static inline size_t
atsk_id_home(const struct atsk_id_map *map, uint64_t id)
{
  id ^= id >> 30; /* the finaliser of splitmix64 */
  id *= UINT64_C(0xbf58476d1ce4e5b9);
  id ^= id >> 27;
  id *= UINT64_C(0x94d049bb133111eb);
  return (size_t)(id ^ id >> 31) & (map->capacity - 1);
}

static inline void *
atsk_id_find(const struct atsk_id_map *map, uint64_t id)
{
  if (map->capacity == 0) {
    return NULL;
  }
  for (size_t i = atsk_id_home(map, id); map->entries[i].value != NULL; i = (i + 1) & (map->capacity - 1)) {
    if (map->entries[i].id == id) {
      return map->entries[i].value;
    }
  }
  return NULL;
}

/* For an id that has room and is not there. */
static inline void
atsk_id_place(struct atsk_id_map *map, uint64_t id, void *value)
{
  size_t i = atsk_id_home(map, id);
  while (map->entries[i].value != NULL) {
    i = (i + 1) & (map->capacity - 1);
  }
  map->entries[i] = (struct atsk_id_entry){id, value};
}

/* Adds an id that is not there.  false: no memory, nothing changed. */
static inline bool
atsk_id_add(struct atsk_id_map *map, uint64_t id, void *value)
{
  if (map->n >= map->capacity - map->capacity / 4) {
    struct atsk_id_map grown = {.capacity = map->capacity == 0 ? 64 : map->capacity * 2, .n = map->n};
    grown.entries            = calloc(grown.capacity, sizeof *grown.entries);
    if (grown.entries == NULL) {
      return false;
    }
    for (size_t i = 0; i < map->capacity; i++) {
      if (map->entries[i].value != NULL) {
        atsk_id_place(&grown, map->entries[i].id, map->entries[i].value);
      }
    }
    free(map->entries);
    *map = grown;
  }
  atsk_id_place(map, id, value);
  map->n++;
  return true;
}

/* Removes an id, if it is there; allocates nothing. */
static inline void
atsk_id_remove(struct atsk_id_map *map, uint64_t id)
{
  if (map->capacity == 0) {
    return;
  }
  size_t mask = map->capacity - 1;
  size_t hole = atsk_id_home(map, id);
  while (map->entries[hole].value != NULL && map->entries[hole].id != id) {
    hole = (hole + 1) & mask;
  }
  if (map->entries[hole].value == NULL) {
    return;
  }
  map->n--;
  for (size_t i = (hole + 1) & mask; map->entries[i].value != NULL; i = (i + 1) & mask) {
    size_t home = atsk_id_home(map, map->entries[i].id);
    if (((i - home) & mask) >= ((i - hole) & mask)) { /* its probe passes the hole: it may stand there */
      map->entries[hole] = map->entries[i];
      hole               = i;
    }
  }
  map->entries[hole].value = NULL;
}

#endif
