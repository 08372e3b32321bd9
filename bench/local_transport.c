/* A transport of niti's ranks through sockets, for the processes of one host where there is no MPI, such as a GPU machine that
 * nothing can be installed on. Slow for large sums, which GPUs exchange by NCCL. It takes the plugin's place, and
 * bench/local_ranks.sh starts the processes:
 *
 *     cc -O2 -shared -fPIC -Isrc bench/local_transport.c -o build/libniti_mpi.so
 *     bench/local_ranks.sh 2 build/niti train ... */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "ranks/transport.h"

enum { RANKS_MAX = 64, TRIES = 3000 }; /* bench/local_ranks.sh has the same most ranks */

static NitiTransport transport;
static int sockets[RANKS_MAX]; /* on rank 0: of every other rank; elsewhere [0]: of rank 0 */

static bool send_all(int to, const void *data, size_t bytes) {
  for (size_t at = 0; at < bytes;) {
    const ssize_t some = send(to, (const char *)data + at, bytes - at, MSG_NOSIGNAL);
    if (some <= 0) return false;
    at += (size_t)some;
  }
  return true;
}

static bool receive_all(int from, void *data, size_t bytes) {
  for (size_t at = 0; at < bytes;) {
    const ssize_t some = recv(from, (char *)data + at, bytes - at, 0);
    if (some <= 0) return false;
    at += (size_t)some;
  }
  return true;
}

static bool broadcast(void *data, size_t bytes) {
  if (transport.rank > 0) return receive_all(sockets[0], data, bytes);
  for (int r = 1; r < transport.size; ++r) {
    if (!send_all(sockets[r], data, bytes)) return false;
  }
  return true;
}

static void combine(void *to, const void *from, size_t count, NitiReduction reduction) {
  for (size_t i = 0; i < count; ++i) {
    switch (reduction) {
      case NITI_REDUCE_MAX_U32:
        if (((const uint32_t *)from)[i] > ((uint32_t *)to)[i]) ((uint32_t *)to)[i] = ((const uint32_t *)from)[i];
        break;
      case NITI_REDUCE_MAX_S64:
        if (((const int64_t *)from)[i] > ((int64_t *)to)[i]) ((int64_t *)to)[i] = ((const int64_t *)from)[i];
        break;
      case NITI_REDUCE_SUM_S32: ((int32_t *)to)[i] += ((const int32_t *)from)[i]; break;
      case NITI_REDUCE_SUM_S64: ((int64_t *)to)[i] += ((const int64_t *)from)[i]; break;
    }
  }
}

static bool reduce(void *data, size_t count, NitiReduction reduction) {
  static const size_t element[] = {4, 8, 4, 8};
  const size_t bytes = count * element[reduction];
  if (transport.rank > 0) return send_all(sockets[0], data, bytes) && receive_all(sockets[0], data, bytes);
  void *other = malloc(bytes);
  bool good = other != NULL;
  for (int r = 1; good && r < transport.size; ++r) {
    good = receive_all(sockets[r], other, bytes);
    if (good) combine(data, other, count, reduction);
  }
  free(other);
  return good && broadcast(data, bytes);
}

static bool end(void) { return true; } /* what begins is complete at once */

static bool gather(void *out, const void *in, size_t bytes) {
  const size_t all = bytes * (size_t)transport.size;
  if (transport.rank > 0) return send_all(sockets[0], in, bytes) && receive_all(sockets[0], out, all);
  memcpy(out, in, bytes);
  for (int r = 1; r < transport.size; ++r) {
    if (!receive_all(sockets[r], (char *)out + bytes * (size_t)r, bytes)) return false;
  }
  return broadcast(out, all);
}

static const char *failure(void) { return "another process is gone"; }

static void close_all(void) {
  for (int r = 0; r < transport.size; ++r) {
    if (sockets[r] > 0) (void)close(sockets[r]);
  }
}

static void abort_all(int code) { _exit(code); } /* the others' next exchange fails */

/* An address that is no file: it goes away with its processes. */
static socklen_t address(struct sockaddr_un *out) {
  const char *name = getenv("NITI_LOCAL_NAME");
  *out = (struct sockaddr_un){.sun_family = AF_UNIX};
  (void)snprintf(out->sun_path + 1, sizeof out->sun_path - 1, "niti-ranks-%s", name ? name : "");
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(out->sun_path + 1));
}

static bool await_others(void) {
  struct sockaddr_un at;
  const socklen_t length = address(&at);
  const int door = socket(AF_UNIX, SOCK_STREAM, 0);
  if (door < 0 || bind(door, (struct sockaddr *)&at, length) != 0 || listen(door, RANKS_MAX) != 0) return false;
  for (int i = 1; i < transport.size; ++i) {
    int32_t rank = 0;
    const int other = accept(door, NULL, NULL);
    if (other < 0 || !receive_all(other, &rank, sizeof rank) || rank < 1 || rank >= transport.size) return false;
    sockets[rank] = other;
  }
  (void)close(door);
  return true;
}

static bool join_first(void) {
  struct sockaddr_un at;
  const socklen_t length = address(&at);
  const int32_t rank = transport.rank;
  for (int i = 0; i < TRIES; ++i) {
    const int first = socket(AF_UNIX, SOCK_STREAM, 0);
    if (first >= 0 && connect(first, (struct sockaddr *)&at, length) == 0) {
      sockets[0] = first;
      return send_all(first, &rank, sizeof rank);
    }
    (void)close(first);
    (void)usleep(10000);
  }
  return false;
}

__attribute__((visibility("default"))) const NitiTransport *niti_transport(int, int, NitiTransportLost, void *, char *);
const NitiTransport *niti_transport(int version, int wait, NitiTransportLost lost, void *context, char *why) {
  (void)wait, (void)lost, (void)context; /* a rank that is gone closes its socket; one that is stopped stays unnoticed */
  const char *rank = getenv("OMPI_COMM_WORLD_RANK"), *size = getenv("OMPI_COMM_WORLD_SIZE");
  transport = (NitiTransport){
      "sockets", rank ? atoi(rank) : 0, size ? atoi(size) : 1, 0, 0, reduce, reduce, end, broadcast, gather, failure, close_all,
      abort_all};
  transport.local_rank = transport.rank;
  transport.local_size = transport.size;
  if (version == NITI_TRANSPORT_VERSION && transport.size <= RANKS_MAX && (transport.rank == 0 ? await_others() : join_first()))
    return &transport;
  (void)snprintf(why, NITI_TRANSPORT_TEXT, "the processes could not connect through sockets");
  return NULL;
}
