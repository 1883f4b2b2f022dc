/* See body_count.h. */
#include "hooks/body_count.h"

#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

#include <linux/tcp.h> /* the C library's struct tcp_info lacks tcpi_bytes_acked */

/* Bytes that the pod's kernel has taken on this connection, since it was made. */
static bool
acknowledged(int fd, uint64_t *out)
{
  struct tcp_info info;
  socklen_t len = sizeof info;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
      len < offsetof(struct tcp_info, tcpi_bytes_acked) + sizeof info.tcpi_bytes_acked) {
    return false;
  }
  *out = info.tcpi_bytes_acked;
  return true;
}

/* Closing the pod's side for reading and writing ends the attempt as a pod's own hanging up does, without a second one: the pod sees a
 * body without its end, and Traffic Server makes an error answer, whose status is ours to set. */
static int
on_look(TSCont contp, TSEvent event, void *edata)
{
  struct atsk_body_count *count = (struct atsk_body_count *)TSContDataGet(contp);
  uint64_t bytes                = 0;
  int fd                        = -1;
  (void)event, (void)edata;
  count->pending = NULL;
  if (TSHttpTxnServerFdGet(count->txnp, &fd) == TS_SUCCESS && fd >= 0 && acknowledged(fd, &bytes)) {
    const uint64_t head = (uint64_t)TSHttpTxnServerReqHdrBytesGet(count->txnp);
    if (bytes > count->before + head && bytes - count->before - head > count->max) {
      count->is_too_large = true;
      (void)shutdown(fd, SHUT_RDWR);
      return 0;
    }
  }
  count->pending = TSContScheduleOnThread(contp, ATSK_BODY_COUNT_MS, TSEventThreadSelf());
  return 0;
}

void
atsk_body_count_begin(struct atsk_body_count *count, TSHttpTxn txnp, uint64_t max)
{
  int fd = -1;
  atsk_body_count_end(count); /* an attempt that failed before this one */
  count->txnp   = txnp;
  count->max    = max;
  count->before = 0;
  if (TSHttpTxnServerFdGet(txnp, &fd) == TS_SUCCESS && fd >= 0) {
    (void)acknowledged(fd, &count->before);
  }
  count->cont = TSContCreate(on_look, TSMutexCreate()); /* an event needs one; it goes with the continuation */
  TSContDataSet(count->cont, count);
  count->pending = TSContScheduleOnThread(count->cont, ATSK_BODY_COUNT_MS, TSEventThreadSelf());
}

void
atsk_body_count_end(struct atsk_body_count *count)
{
  if (count->cont == NULL) {
    return;
  }
  if (count->pending != NULL) {
    TSActionCancel(count->pending);
    count->pending = NULL;
  }
  TSContDestroy(count->cont);
  count->cont = NULL;
}
