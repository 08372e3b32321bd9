/* Walks folders: images at any depth up to a limit, links followed, loops of links noticed. */
#define _GNU_SOURCE /* asprintf */
#include "data/scan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "data/format.h"
#include "platform/folder.h"
#include "platform/system.h"

/* A folder being read, and those above it. */
typedef struct Level {
  const struct Level *above;
  dev_t device;
  ino_t number;
  int depth;
} Level;

typedef struct Scan {
  NitiPaths *found;
  NitiUnread *unread;
  const char *dir;
  bool folders;  /* look for folders, here only; else for images, everywhere below */
  int32_t *left; /* NULL, or how many entries may be looked at; then the walk ends after the first image, too */
} Scan;

static NitiStatus leave_aside(Scan *scan, NitiUnreadKind kind, const char *below) {
  char **first = &scan->unread->first[kind];
  ++scan->unread->count[kind];
  if (*first && strcmp(*first, below) <= 0) return NITI_OK;
  char *copy = strdup(below);
  if (!copy) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for a path", scan->dir);
  free(*first);
  *first = copy;
  return NITI_OK;
}

static bool is_image_name(const char *name) {
  const char *end = strrchr(name, '.');
  return end && (strcasecmp(end, ".jpg") == 0 || strcasecmp(end, ".jpeg") == 0 || strcasecmp(end, ".png") == 0);
}

static NitiStatus scan_folder(Scan *scan, const char *path, const char *below, const Level *above);

/* Where a walk is: in the folder `path`, which is DIR/BELOW. */
typedef struct Place {
  Scan *scan;
  const char *path, *below;
  const Level *level;
} Place;

static NitiStatus scan_below(const Place *place, const char *name, const char *below) {
  char *path = NULL;
  NITI_TRY(niti_path_join(&path, place->path, name));
  const NitiStatus status = scan_folder(place->scan, path, below, place->level);
  free(path);
  return status;
}

static NitiStatus sort_entry(const Place *place, const char *name, const char *below, bool folder) {
  Scan *scan = place->scan;
  if (name[0] == '.') return leave_aside(scan, NITI_UNREAD_HIDDEN, below);
  if (folder && !scan->folders) return scan_below(place, name, below);
  if (folder ? scan->folders : !scan->folders && is_image_name(name)) return niti_paths_add(scan->found, below, scan->dir);
  return leave_aside(scan, NITI_UNREAD_TYPE, below);
}

static NitiStatus take_entry(void *context, const char *name, bool folder) {
  const Place *place = context;
  int32_t *left = place->scan->left;
  char *below = NULL;
  if (left && (place->scan->found->count > 0 || (*left)-- == 0))
    return niti_fail(NITI_ERROR_FORMAT, "%s: enough entries were looked at", place->path);
  NITI_TRY(niti_path_join(&below, place->below, name));
  const NitiStatus status = sort_entry(place, name, below, folder);
  free(below);
  return status;
}

static NitiStatus make_level(Level *level, const char *path, const Level *above) {
  struct stat info;
  if (niti_system.stat(path, &info) != 0) return niti_fail(NITI_ERROR_FILE, "%s: cannot be opened: %s", path, strerror(errno));
  *level = (Level){.above = above, .device = info.st_dev, .number = info.st_ino, .depth = above ? above->depth + 1 : 0};
  return NITI_OK;
}

static NitiStatus scan_folder(Scan *scan, const char *path, const char *below, const Level *above) {
  Level level;
  NITI_TRY(make_level(&level, path, above));
  for (const Level *at = above; at; at = at->above) {
    if (at->device == level.device && at->number == level.number) return leave_aside(scan, NITI_UNREAD_LOOP, below);
  }
  if (level.depth > NITI_FOLDER_DEPTH_MAX) return leave_aside(scan, NITI_UNREAD_DEEP, below);
  Place place = {scan, path, below, &level};
  return niti_folder_walk(path, take_entry, &place);
}

static int compare_paths(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static NitiStatus run_scan(Scan *scan, const char *below) {
  const size_t before = scan->found->count;
  char *path = NULL;
  Level top;
  NITI_TRY(make_level(&top, scan->dir, NULL));
  top.depth = -1; /* the folder below it has depth 0 */
  NITI_TRY(niti_path_join(&path, scan->dir, below));
  const NitiStatus status = scan_folder(scan, path, below, *below ? &top : NULL);
  free(path);
  if (status == NITI_OK && scan->found->count > before)
    qsort(scan->found->path + before, scan->found->count - before, sizeof *scan->found->path, compare_paths);
  return status;
}

NitiStatus niti_scan_images(NitiPaths *found, NitiUnread *unread, const char *dir, const char *below) {
  Scan scan = {.found = found, .unread = unread, .dir = dir};
  return run_scan(&scan, below);
}

bool niti_scan_has_image(const char *dir, int32_t most) {
  NitiPaths found = {0};
  NitiUnread unread = {{0}, {0}};
  Scan scan = {.found = &found, .unread = &unread, .dir = dir, .left = &most};
  (void)run_scan(&scan, "");
  const bool any = found.count > 0;
  niti_paths_close(&found);
  niti_unread_close(&unread);
  return any;
}

NitiStatus niti_scan_folders(NitiPaths *found, NitiUnread *unread, const char *dir) {
  Scan scan = {.found = found, .unread = unread, .dir = dir, .folders = true};
  return run_scan(&scan, "");
}

char *niti_unread_text(const NitiUnread *unread) {
  static const char *const one[NITI_UNREAD_KINDS] = {"file of another type", "hidden entry", "folder too deep",
                                                     "link to a folder above it"};
  static const char *const many[NITI_UNREAD_KINDS] = {"files of other types", "hidden entries", "folders too deep",
                                                      "links to folders above them"};
  char *text = NULL;
  for (int kind = 0; kind < NITI_UNREAD_KINDS; ++kind) {
    const long long count = unread->count[kind];
    char *longer = NULL;
    if (count == 0) continue;
    if (asprintf(&longer, "%s%s%lld %s (%s%s)", text ? text : "", text ? ", " : "", count, count == 1 ? one[kind] : many[kind],
                 count == 1 ? "" : "first: ", unread->first[kind]) < 0)
      longer = NULL;
    free(text);
    text = longer;
    if (!text) return NULL;
  }
  return text;
}

void niti_unread_close(NitiUnread *unread) {
  for (int kind = 0; kind < NITI_UNREAD_KINDS; ++kind) free(unread->first[kind]);
  memset(unread, 0, sizeof *unread);
}

NitiStatus niti_images_find(NitiPaths *paths, char **unread, const char *dir) {
  NitiUnread rest = {{0}, {0}};
  const size_t before = paths->count;
  *unread = NULL;
  NitiStatus status = niti_scan_images(paths, &rest, dir, "");
  for (size_t i = before; status == NITI_OK && i < paths->count; ++i) {
    char *whole = NULL;
    status = niti_path_join(&whole, dir, paths->path[i]);
    if (status != NITI_OK) break;
    free(paths->path[i]);
    paths->path[i] = whole;
  }
  if (status == NITI_OK) *unread = niti_unread_text(&rest);
  niti_unread_close(&rest);
  return status;
}
