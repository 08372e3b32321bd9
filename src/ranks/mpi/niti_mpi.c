/* libniti_mpi.so: MPI behind the table of ranks/transport.h. watch.c finds ranks that no longer answer. */
#define _GNU_SOURCE
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ranks/mpi/watch.h"
#include "ranks/transport.h"

enum {
  PIECE = 1 << 30, /* bytes of one broadcast */
  TURNS = 20       /* of asking whether all ranks have come, without a pause */
};

/* MPI is one per process, and so is this state. */
static NitiTransport transport;
static MPI_Comm work = MPI_COMM_NULL, sums = MPI_COMM_NULL;
static MPI_Request *begun; /* [room]; the first `under_way` are collectives of `sums` */
static int under_way, room;
static char library[MPI_MAX_LIBRARY_VERSION_STRING];
static pid_t *mates; /* [mate_count], and the number of each: the ranks of this host after this one */
static int *mate_ranks, mate_count;
static _Atomic bool is_usable; /* MPI has started, and does not end yet */

static int failed = MPI_SUCCESS; /* the last failure */

static bool succeeded(int code) {
  if (code != MPI_SUCCESS) failed = code;
  return code == MPI_SUCCESS;
}

/* Open MPI says MPI_ERR_INTERN, MPI_ERR_OTHER or such where memory runs out. */
static const char *failure(void) {
  static char text[MPI_MAX_ERROR_STRING + 64];
  int length = 0;
  if (failed == MPI_SUCCESS || MPI_Error_string(failed, text, &length) != MPI_SUCCESS) return "out of memory";
  (void)snprintf(text + length, sizeof text - (size_t)length, "; memory may have run out on this host");
  return text;
}

/* The request of a collective that is about to begin; NULL: out of memory. */
static MPI_Request *next_request(void) {
  if (under_way == room) {
    const int more = 2 * room + 16;
    MPI_Request *larger = realloc(begun, (size_t)more * sizeof *larger);
    if (!larger) return NULL;
    begun = larger;
    room = more;
  }
  begun[under_way] = MPI_REQUEST_NULL;
  return &begun[under_way++];
}

static bool reduce_piece(void *data, int count, MPI_Datatype type, MPI_Op op, bool waits) {
  if (waits) return succeeded(MPI_Allreduce(MPI_IN_PLACE, data, count, type, op, work));
  MPI_Request *request = next_request();
  return request && succeeded(MPI_Iallreduce(MPI_IN_PLACE, data, count, type, op, sums, request));
}

static bool reduce_pieces(void *data, size_t count, NitiReduction reduction, bool waits) {
  static const size_t bytes[] = {4, 8, 4, 8};
  const MPI_Datatype types[] = {MPI_UINT32_T, MPI_INT64_T, MPI_INT32_T, MPI_INT64_T};
  const MPI_Op op = reduction == NITI_REDUCE_MAX_U32 || reduction == NITI_REDUCE_MAX_S64 ? MPI_MAX : MPI_SUM;
  const size_t most = PIECE / bytes[reduction];
  for (size_t at = 0; at < count; at += most) {
    const int some = (int)(count - at < most ? count - at : most);
    if (!reduce_piece((char *)data + at * bytes[reduction], some, types[reduction], op, waits)) return false;
  }
  return true;
}

static bool reduce(void *data, size_t count, NitiReduction reduction) { return reduce_pieces(data, count, reduction, true); }

/* Other collectives of this process move these on, as long as they are under way. */
static bool begin(void *data, size_t count, NitiReduction reduction) { return reduce_pieces(data, count, reduction, false); }

static bool end(void) {
  const int count = under_way;
  under_way = 0;
  return succeeded(MPI_Waitall(count, begun, MPI_STATUSES_IGNORE));
}

/* Until all ranks have come here, which may take a while between steps: MPI's own waiting takes a core from the ranks that are at
 * work. */
static bool await_all(void) {
  const struct timespec pause = {.tv_nsec = 200000};
  int done = 0;
  MPI_Request arrived;
  if (!succeeded(MPI_Ibarrier(work, &arrived))) return false;
  for (int turn = 0; succeeded(MPI_Test(&arrived, &done, MPI_STATUS_IGNORE)) && !done; ++turn) {
    if (turn > TURNS) nanosleep(&pause, NULL);
  }
  return done;
}

static bool broadcast(void *data, size_t bytes) {
  if (!await_all()) return false;
  for (size_t at = 0; at < bytes; at += PIECE) {
    const int some = (int)(bytes - at < PIECE ? bytes - at : PIECE);
    if (!succeeded(MPI_Bcast((char *)data + at, some, MPI_BYTE, 0, work))) return false;
  }
  return true;
}

static bool gather(void *out, const void *in, size_t bytes) {
  return bytes <= PIECE && await_all() && succeeded(MPI_Allgather(in, (int)bytes, MPI_BYTE, out, (int)bytes, MPI_BYTE, work));
}

/* ---- open and close ---- */

/* All ranks come to an end before any stops beating. */
static void close_all(void) {
  MPI_Barrier(work);
  is_usable = false;
  niti_mpi_watch_closing();
  MPI_Finalize();
  niti_mpi_watch_end();
  niti_mpi_watch_mates(mates, mate_ranks, mate_count);
  free(begun);
  free(mates);
  free(mate_ranks);
}

static void abort_all(int code) {
  if (is_usable) MPI_Abort(MPI_COMM_WORLD, code);
}

static const NitiTransport *fail(char *why, const char *what) {
  niti_mpi_watch_end();
  (void)snprintf(why, NITI_TRANSPORT_TEXT, "%s", what);
  return NULL;
}

/* One line of the library's own description: "Open MPI v4.1.4". */
static void name_library(void) {
  int length = 0;
  MPI_Get_library_version(library, &length);
  library[strcspn(library, ",\n")] = 0;
  transport.name = library;
}

/* Which processes the ranks of this host are. */
static bool exchange_mates(MPI_Comm host) {
  const pid_t own = getpid();
  const int size = transport.local_size, first = transport.local_rank + 1;
  mates = calloc((size_t)size, sizeof *mates);
  mate_ranks = calloc((size_t)size, sizeof *mate_ranks);
  if (!mates || !mate_ranks || !succeeded(MPI_Allgather(&own, sizeof own, MPI_BYTE, mates, sizeof own, MPI_BYTE, host)) ||
      !succeeded(MPI_Allgather(&transport.rank, 1, MPI_INT, mate_ranks, 1, MPI_INT, host)))
    return false;
  mate_count = size - first;
  memmove(mates, mates + first, (size_t)mate_count * sizeof *mates);
  memmove(mate_ranks, mate_ranks + first, (size_t)mate_count * sizeof *mate_ranks);
  return true;
}

static bool make_communicators(void) {
  MPI_Comm host;
  if (!succeeded(MPI_Comm_dup(MPI_COMM_WORLD, &work)) || !succeeded(MPI_Comm_dup(MPI_COMM_WORLD, &sums)) ||
      !succeeded(MPI_Comm_split_type(work, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host)))
    return false;
  MPI_Comm_rank(host, &transport.local_rank);
  MPI_Comm_size(host, &transport.local_size);
  const bool good = exchange_mates(host);
  MPI_Comm_free(&host);
  return good;
}

/* Why MPI did not start; NULL: it has. */
static const char *start(void) {
  int provided = 0, already = 0;
  MPI_Comm beats;
  if (!succeeded(MPI_Initialized(&already)) || already) return "MPI is in use already";
  (void)setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0); /* a waiting rank leaves its core to others */
  if (!succeeded(MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &provided))) return "MPI_Init_thread failed";
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN); /* what is made of it inherits that */
  if (!succeeded(MPI_Comm_dup(MPI_COMM_WORLD, &beats))) return "MPI could not make its communicators; memory may have run out";
  MPI_Comm_rank(beats, &transport.rank);
  MPI_Comm_size(beats, &transport.size);
  is_usable = true;
  if (!niti_mpi_watch_started(beats, provided == MPI_THREAD_MULTIPLE)) return "out of memory for the heartbeat";
  if (!make_communicators()) return "MPI could not make its communicators; memory may have run out";
  name_library();
  return NULL;
}

__attribute__((visibility("default"))) const NitiTransport *niti_transport(int, int, NitiTransportLost, void *, char *);
const NitiTransport *niti_transport(int version, int wait, NitiTransportLost lost, void *context, char *why) {
  if (version != NITI_TRANSPORT_VERSION) return fail(why, "it belongs to another version of niti");
  transport = (NitiTransport){.reduce = reduce,
                              .begin = begin,
                              .end = end,
                              .broadcast = broadcast,
                              .gather = gather,
                              .failure = failure,
                              .close = close_all,
                              .abort = abort_all};
  if (!niti_mpi_watch_begin(wait, lost, context)) /* before MPI starts, which waits for all ranks */
    return fail(why, "out of memory for the heartbeat's thread");
  const char *reason = start();
  return reason ? fail(why, reason) : &transport;
}
