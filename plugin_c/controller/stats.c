/* Counters.  Each thread adds to one of a fixed number of shards, so threads share a cache line only when there are more of them than
 * shards; a sum reads all shards.  Static memory: counting cannot fail. */
#include "controller/stats.h"

#include <stdalign.h>
#include <stdatomic.h>

#define N_SHARDS 64u /* twice the threads of a usual 32-core traffic_server; 8 KiB in all */

struct shard {
  alignas(64) _Atomic uint64_t counters[ATSK_N_COUNTERS];
};

static struct shard shards[N_SHARDS];
static _Atomic uint32_t n_threads; /* threads that have counted so far: gives each its shard */

static const struct {
  const char *name;
  const char *label;
} counter_table[] = {
#define ATSK_COUNTER_ROW(id, name, label, help) {name, label},
  ATSK_COUNTERS(ATSK_COUNTER_ROW)
#undef ATSK_COUNTER_ROW
};

/* This thread's shard.  1-based in the thread-local, whose start value is 0. */
static struct shard *
shard_mine(void)
{
  static _Thread_local uint32_t mine;
  if (mine == 0) {
    /* relaxed: only the number itself matters, nothing is read through it */
    mine = atomic_fetch_add_explicit(&n_threads, 1, memory_order_relaxed) % N_SHARDS + 1;
  }
  return &shards[mine - 1];
}

void
atsk_count(enum atsk_counter counter)
{
  /* relaxed, here and in atsk_counter_sum(): a counter orders nothing; an add is never lost, as shards may be shared */
  atomic_fetch_add_explicit(&shard_mine()->counters[counter], 1, memory_order_relaxed);
}

uint64_t
atsk_counter_sum(enum atsk_counter counter)
{
  uint64_t sum = 0;
  for (uint32_t i = 0; i < N_SHARDS; i++) {
    sum += atomic_load_explicit(&shards[i].counters[counter], memory_order_relaxed);
  }
  return sum;
}

const char *
atsk_counter_name(enum atsk_counter counter)
{
  return counter_table[counter].name;
}

const char *
atsk_counter_label(enum atsk_counter counter)
{
  return counter_table[counter].label;
}
