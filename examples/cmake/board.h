/* What the program needs of the board. */
#ifndef BOARD_H
#define BOARD_H

/* Writes to the serial port, at 115,200 baud. */
void board_print(const char *text);

#endif
