/* The files that build systems want beside an exported network's C. */
#ifndef NITI_EXPORT_LAYOUTS_H
#define NITI_EXPORT_LAYOUTS_H

#include "export/export.h"

/* One file of the export; text is owned. */
typedef struct NitiExportFile {
  char path[2 * NITI_EXPORT_NAME_MAX]; /* in the folder; '/' between its parts */
  char *text;
} NitiExportFile;

enum { NITI_EXPORT_FILES_MAX = 32 };

typedef struct NitiExportFiles {
  NitiExportFile files[NITI_EXPORT_FILES_MAX];
  int count;
} NitiExportFiles;

/* Appends a file; takes text, which is malloc's, or NULL where memory ran out. */
void niti_export_add_file(NitiExportFiles *files, const char *folder, const char *name, char *text);
/* The folder of the C files in a layout: "" or "src/". */
const char *niti_export_folder(NitiExportLayout layout);
/* Appends the layout's own files and an example. */
void niti_export_add_layout(NitiExportFiles *files, NitiExportLayout layout, const NitiExportReport *report);
void niti_export_files_close(NitiExportFiles *files);

#endif
