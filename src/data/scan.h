/* Inside src/data: finding image files below a folder, and counting what is left aside. */
#ifndef NITI_DATA_SCAN_H
#define NITI_DATA_SCAN_H

#include "data/dataset.h"

enum { NITI_FOLDER_DEPTH_MAX = 16 }; /* levels of nested folders below the one scanned */

/* Why an entry of a folder is not read. */
typedef enum NitiUnreadKind {
  NITI_UNREAD_TYPE = 0, /* neither a folder nor named as an image */
  NITI_UNREAD_HIDDEN,   /* its name begins with a dot */
  NITI_UNREAD_DEEP,     /* a folder below NITI_FOLDER_DEPTH_MAX others */
  NITI_UNREAD_LOOP,     /* a link to a folder that contains it */
  NITI_UNREAD_KINDS,
} NitiUnreadKind;

typedef struct NitiUnread {
  int64_t count[NITI_UNREAD_KINDS];
  char *first[NITI_UNREAD_KINDS]; /* the first in byte order; owned */
} NitiUnread;

/* Adds the image files below DIR/BELOW to `found` as paths below DIR, in byte order, and counts the rest. */
NitiStatus niti_scan_images(NitiPaths *found, NitiUnread *unread, const char *dir, const char *below);
/* Adds the names of the folders in DIR (links to folders too), in byte order, and counts the rest. */
NitiStatus niti_scan_folders(NitiPaths *found, NitiUnread *unread, const char *dir);
/* Whether an image file is among the first `most` entries below DIR, in no certain order; looks at no more than it needs. */
bool niti_scan_has_image(const char *dir, int32_t most);
/* "2 files of other types (first: a/notes.txt), 1 hidden (first: a/.x)", to be freed by the caller; NULL where there is nothing
 * to say, or no memory. */
char *niti_unread_text(const NitiUnread *unread);
void niti_unread_close(NitiUnread *unread);

#endif
