/* libniti_mpi.so: MPI behind the table of ranks/transport.h, and a heartbeat that finds ranks which no longer answer. */
#include <mpi.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ranks/mpi/stopped.h"
#include "ranks/transport.h"

enum {
  STARTING = 30,   /* seconds in which MPI has to start: longer than many ranks of a busy cluster take */
  SILENT = 6,      /* seconds without a beat after which a rank is lost */
  ASLEEP = 3,      /* a pause between two beats of our own that says that we were stopped ourselves */
  PIECE = 1 << 30, /* bytes of one broadcast */
  TURNS = 20,      /* of asking whether all ranks have come, without a pause */
  BEAT = 1         /* the messages' tag */
};

/* MPI is one per process, and so is this state. */
static NitiTransport transport;
static MPI_Comm work = MPI_COMM_NULL, sums = MPI_COMM_NULL, beats = MPI_COMM_NULL;
static MPI_Request *begun; /* [room]; the first `under_way` are collectives of `sums` */
static int under_way, room;
static char library[MPI_MAX_LIBRARY_VERSION_STRING];
static NitiTransportLost tell_lost;
static void *lost_context;
static pthread_t beating;
static bool threads_allowed, is_beating, is_started, is_ending;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ending = PTHREAD_COND_INITIALIZER;

static int failed = MPI_SUCCESS; /* the last failure */

static bool succeeded(int code) {
  if (code != MPI_SUCCESS) failed = code;
  return code == MPI_SUCCESS;
}

static const char *failure(void) {
  static char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  return MPI_Error_string(failed, text, &length) == MPI_SUCCESS && failed != MPI_SUCCESS ? text : "out of memory";
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

/* ---- the heartbeat: every rank sends rank 0 a byte per second, and rank 0 every rank ---- */

static double seconds_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct Peer {
  MPI_Request sent;
  double heard;
} Peer;

static void send_beat(Peer *peer, int rank) {
  static char byte;
  int done = 1;
  if (peer->sent != MPI_REQUEST_NULL) MPI_Test(&peer->sent, &done, MPI_STATUS_IGNORE);
  if (done) MPI_Isend(&byte, 1, MPI_BYTE, rank, BEAT, beats, &peer->sent);
}

static void hear_beats(Peer *peers, double now) {
  int there = 0;
  MPI_Status status;
  while (succeeded(MPI_Iprobe(MPI_ANY_SOURCE, BEAT, beats, &there, &status)) && there) {
    char byte;
    MPI_Recv(&byte, 1, MPI_BYTE, status.MPI_SOURCE, BEAT, beats, MPI_STATUS_IGNORE);
    peers[status.MPI_SOURCE].heard = now;
  }
}

/* Whether the heartbeat goes on after a second. */
static bool wait_second(void) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  ++until.tv_sec;
  pthread_mutex_lock(&lock);
  if (!is_ending) (void)pthread_cond_timedwait(&ending, &lock, &until);
  const bool goes_on = !is_ending;
  pthread_mutex_unlock(&lock);
  return goes_on;
}

/* For how many seconds a rank of this host has been seen stopped, one after the other; asked every second. */
static int count_stopped(int *stopped, int seconds) {
  const int before = *stopped;
  *stopped = niti_mpi_stopped();
  if (*stopped < 0) return 0;
  return *stopped == before ? seconds + 1 : 1;
}

/* Waits until MPI has started, before which nothing can be asked of it, or is not wanted any more; false: so it is. Rank 0 speaks
 * first. */
static bool wait_start(void) {
  const char *number = getenv("OMPI_COMM_WORLD_RANK");
  const int later = number && strcmp(number, "0") != 0, most = STARTING + later;
  const double begin = seconds_now();
  int stopped = -1, seconds = 0;
  while (wait_second()) {
    pthread_mutex_lock(&lock);
    const bool started = is_started;
    pthread_mutex_unlock(&lock);
    if (started) return threads_allowed;
    seconds = count_stopped(&stopped, seconds);
    if (seconds <= SILENT + later && seconds_now() - begin <= most) continue;
    if (seconds > SILENT + later)
      tell_lost(lost_context, stopped, seconds);
    else
      tell_lost(lost_context, -1, most);
    return false;
  }
  return false;
}

static void listen_and_send(Peer *peers) {
  const int first = transport.rank == 0 ? 1 : 0, end = transport.rank == 0 ? transport.size : 1;
  double before = seconds_now();
  for (int r = first; r < end; ++r) peers[r] = (Peer){MPI_REQUEST_NULL, before};
  while (wait_second()) {
    const double now = seconds_now();
    hear_beats(peers, now);
    for (int r = first; r < end; ++r) {
      send_beat(&peers[r], r);
      if (now - before > ASLEEP) peers[r].heard = now;
      if (now - peers[r].heard <= SILENT) continue;
      tell_lost(lost_context, r, (int)(now - peers[r].heard));
      peers[r].heard = now + 3600;
    }
    before = now;
  }
  for (int r = first; r < end; ++r) {
    if (peers[r].sent != MPI_REQUEST_NULL) MPI_Request_free(&peers[r].sent);
  }
}

static void *beat(void *context) {
  (void)context;
  Peer *peers = wait_start() ? calloc((size_t)transport.size, sizeof *peers) : NULL;
  if (peers) listen_and_send(peers);
  free(peers);
  return NULL;
}

static void set_under_lock(bool *what) {
  pthread_mutex_lock(&lock);
  *what = true;
  pthread_cond_signal(&ending);
  pthread_mutex_unlock(&lock);
}

static void stop_watching(void) {
  set_under_lock(&is_ending);
  if (is_beating) pthread_join(beating, NULL);
  is_beating = false;
}

/* ---- open and close ---- */

/* All ranks come to an end before any stops beating. */
static void close_all(void) {
  MPI_Barrier(work);
  stop_watching();
  free(begun);
  MPI_Finalize();
}

static void abort_all(int code) { MPI_Abort(MPI_COMM_WORLD, code); }

static const NitiTransport *fail(char *why, const char *what) {
  stop_watching();
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

/* Why MPI did not start; NULL: it has. */
static const char *start(void) {
  int provided = 0, already = 0;
  MPI_Comm host;
  if (!succeeded(MPI_Initialized(&already)) || already) return "MPI is in use already";
  (void)setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0); /* a waiting rank leaves its core to others */
  if (!succeeded(MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &provided))) return "MPI_Init_thread failed";
  if (!succeeded(MPI_Comm_dup(MPI_COMM_WORLD, &beats))) return "MPI could not make its communicators";
  MPI_Comm_rank(beats, &transport.rank);
  MPI_Comm_size(beats, &transport.size);
  threads_allowed = provided == MPI_THREAD_MULTIPLE;
  set_under_lock(&is_started);
  if (!succeeded(MPI_Comm_dup(MPI_COMM_WORLD, &work)) || !succeeded(MPI_Comm_dup(MPI_COMM_WORLD, &sums)) ||
      !succeeded(MPI_Comm_split_type(work, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host)))
    return "MPI could not make its communicators";
  MPI_Comm_set_errhandler(work, MPI_ERRORS_RETURN);
  MPI_Comm_set_errhandler(sums, MPI_ERRORS_RETURN);
  MPI_Comm_set_errhandler(beats, MPI_ERRORS_RETURN);
  MPI_Comm_rank(host, &transport.local_rank);
  MPI_Comm_size(host, &transport.local_size);
  MPI_Comm_free(&host);
  name_library();
  return NULL;
}

__attribute__((visibility("default"))) const NitiTransport *niti_transport(int, NitiTransportLost, void *, char *);
const NitiTransport *niti_transport(int version, NitiTransportLost lost, void *context, char *why) {
  if (version != NITI_TRANSPORT_VERSION) return fail(why, "it belongs to another version of niti");
  transport = (NitiTransport){.reduce = reduce,
                              .begin = begin,
                              .end = end,
                              .broadcast = broadcast,
                              .gather = gather,
                              .failure = failure,
                              .close = close_all,
                              .abort = abort_all};
  tell_lost = lost;
  lost_context = context;
  is_beating = pthread_create(&beating, NULL, beat, NULL) == 0; /* before MPI starts, which waits for all ranks */
  const char *reason = start();
  return reason ? fail(why, reason) : &transport;
}
