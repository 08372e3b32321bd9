/* The heartbeat, and the deadlines of MPI's start and end. */
#define _GNU_SOURCE
#include "ranks/mpi/watch.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "ranks/mpi/mates.h"

enum {
  SILENT = 6,      /* seconds without a beat after which a rank is lost */
  ASLEEP = 3,      /* a pause between two beats of our own that says that we were stopped ourselves */
  LEAVING = 2,     /* seconds in which a process ends after MPI has ended */
  STACK = 1 << 20, /* bytes; the system's own default would count against a limit of memory */
  BEAT = 1         /* the messages' tag */
};

typedef struct Peer {
  MPI_Request sent;
  double heard;
} Peer;

typedef enum Phase { STARTING, BEATING, CLOSING, OVER } Phase;

/* MPI is one per process, and so is this state. */
static struct {
  int wait;
  NitiTransportLost lost;
  void *context;
  pthread_t thread;
  bool is_made, threads, quiet; /* quiet: the thread calls MPI no more */
  Phase phase;
  MPI_Comm beats;
  int rank, size;
  Peer *peers; /* [size] */
} watch;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static double seconds_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Whether the phase goes on after a second. */
static bool wait_second(Phase phase) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  ++until.tv_sec;
  pthread_mutex_lock(&lock);
  if (watch.phase == phase) (void)pthread_cond_timedwait(&changed, &lock, &until);
  const bool goes_on = watch.phase == phase;
  pthread_mutex_unlock(&lock);
  return goes_on;
}

/* ---- MPI's start and end ---- */

/* For how many seconds a rank of this host has been seen stopped, one after the other; asked every second. */
static int count_stopped(int *stopped, int seconds) {
  const int before = *stopped;
  *stopped = niti_mpi_stopped();
  if (*stopped < 0) return 0;
  return *stopped == before ? seconds + 1 : 1;
}

/* A host's first rank speaks a second before its others; one that knows who is missing, a second before those that do not. */
static bool is_late(double seconds, int later, Phase phase, char why[NITI_TRANSPORT_TEXT]) {
  why[0] = 0;
  if (seconds <= watch.wait + later) return false;
  if (phase == STARTING && niti_mpi_describe(why, NITI_TRANSPORT_TEXT)) return true;
  return seconds > watch.wait + later + 1;
}

/* Until the phase is over; false: it was not in time, and the run is lost. */
static bool watch_phase(Phase phase) {
  const int number = niti_mpi_given("OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"), later = number > 0;
  double begin = seconds_now(), before = begin;
  int stopped = -1, seconds = 0;
  char why[NITI_TRANSPORT_TEXT] = "";
  while (wait_second(phase)) {
    const double now = seconds_now();
    if (now - before > ASLEEP) begin += now - before;
    before = now;
    seconds = count_stopped(&stopped, seconds);
    if (seconds > SILENT + later) {
      watch.lost(watch.context, stopped, seconds, why);
      return false;
    }
    if (!is_late(now - begin, later, phase, why)) continue;
    watch.lost(watch.context, phase == STARTING ? NITI_LOST_STARTING : NITI_LOST_ENDING, (int)(now - begin), why);
    return false;
  }
  return true;
}

/* ---- the heartbeat ---- */

static void send_beat(Peer *peer, int rank) {
  static char byte;
  int done = 1;
  if (peer->sent != MPI_REQUEST_NULL) MPI_Test(&peer->sent, &done, MPI_STATUS_IGNORE);
  if (done) MPI_Isend(&byte, 1, MPI_BYTE, rank, BEAT, watch.beats, &peer->sent);
}

static void hear_beats(Peer *peers, double now) {
  int there = 0;
  MPI_Status status;
  while (MPI_Iprobe(MPI_ANY_SOURCE, BEAT, watch.beats, &there, &status) == MPI_SUCCESS && there) {
    char byte;
    MPI_Recv(&byte, 1, MPI_BYTE, status.MPI_SOURCE, BEAT, watch.beats, MPI_STATUS_IGNORE);
    peers[status.MPI_SOURCE].heard = now;
  }
}

static void listen_and_send(Peer *peers) {
  const int first = watch.rank == 0 ? 1 : 0, end = watch.rank == 0 ? watch.size : 1;
  double before = seconds_now();
  for (int r = first; r < end; ++r) peers[r] = (Peer){MPI_REQUEST_NULL, before};
  while (wait_second(BEATING)) {
    const double now = seconds_now();
    hear_beats(peers, now);
    for (int r = first; r < end; ++r) {
      send_beat(&peers[r], r);
      if (now - before > ASLEEP) peers[r].heard = now;
      if (now - peers[r].heard <= SILENT) continue;
      watch.lost(watch.context, r, (int)(now - peers[r].heard), "");
      peers[r].heard = now + 3600;
    }
    before = now;
  }
  for (int r = first; r < end; ++r) {
    if (peers[r].sent != MPI_REQUEST_NULL) MPI_Request_free(&peers[r].sent);
  }
}

static void be_quiet(void) {
  pthread_mutex_lock(&lock);
  watch.quiet = true;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

static void *work(void *context) {
  (void)context;
  bool goes_on = watch_phase(STARTING);
  if (goes_on && watch.threads && watch.peers) listen_and_send(watch.peers);
  while (wait_second(BEATING)) {
  }
  be_quiet();
  if (goes_on) (void)watch_phase(CLOSING);
  return NULL;
}

/* ---- what the plugin calls ---- */

bool niti_mpi_watch_begin(int wait, NitiTransportLost lost, void *context) {
  pthread_attr_t attributes;
  watch.wait = wait;
  watch.lost = lost;
  watch.context = context;
  if (pthread_attr_init(&attributes) != 0) return false;
  (void)pthread_attr_setstacksize(&attributes, STACK);
  watch.is_made = pthread_create(&watch.thread, &attributes, work, NULL) == 0;
  (void)pthread_attr_destroy(&attributes);
  return watch.is_made;
}

static void enter(Phase phase) {
  pthread_mutex_lock(&lock);
  watch.phase = phase;
  pthread_cond_broadcast(&changed);
  while (phase == CLOSING && watch.is_made && !watch.quiet) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
}

bool niti_mpi_watch_started(MPI_Comm beats, bool threads) {
  MPI_Comm_rank(beats, &watch.rank);
  MPI_Comm_size(beats, &watch.size);
  watch.beats = beats;
  watch.threads = threads;
  watch.peers = calloc((size_t)watch.size, sizeof *watch.peers);
  if (watch.peers) enter(BEATING);
  return watch.peers;
}

void niti_mpi_watch_closing(void) { enter(CLOSING); }

void niti_mpi_watch_end(void) {
  enter(OVER);
  if (watch.is_made) pthread_join(watch.thread, NULL);
  watch.is_made = false;
  free(watch.peers);
  watch.peers = NULL;
}

static bool have_ended(const pid_t *processes, const int *ranks, int count, double since) {
  for (int i = 0; i < count; ++i) {
    bool stopped = false;
    if (!niti_mpi_is_running(processes[i], ranks[i], &stopped)) continue;
    const double seconds = seconds_now() - since;
    if (stopped && seconds > SILENT) watch.lost(watch.context, ranks[i], (int)seconds, "");
    if (stopped ? seconds <= SILENT : seconds <= LEAVING) return false;
  }
  return true;
}

void niti_mpi_watch_mates(const pid_t *processes, const int *ranks, int count) {
  const struct timespec pause = {.tv_nsec = 2000000};
  const double since = seconds_now();
  while (!have_ended(processes, ranks, count, since)) nanosleep(&pause, NULL);
}
