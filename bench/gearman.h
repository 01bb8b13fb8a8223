/* The part of the Gearman wire protocol that the load generator speaks.
 *
 * A packet is a head of 12 bytes (magic, type, size of the body, both numbers big-endian) and a body: arguments
 * joined by single NUL bytes, the last one running to the end.
 */
#ifndef GEARMAN_H
#define GEARMAN_H

#include <stdint.h>
#include <string.h>

enum { HEAD_SIZE = 12 };

enum packet_type {
    CAN_DO = 1,
    PRE_SLEEP = 4,
    NOOP = 6,
    SUBMIT_JOB = 7,
    JOB_CREATED = 8,
    GRAB_JOB = 9,
    NO_JOB = 10,
    JOB_ASSIGN = 11,
    WORK_COMPLETE = 13,
    WORK_FAIL = 14,
    ECHO_REQ = 16,
    ECHO_RES = 17,
    SUBMIT_JOB_BG = 18,
    ERROR_PACKET = 19,
    JOB_ASSIGN_UNIQ = 31,
    GRAB_JOB_ALL = 39,
    JOB_ASSIGN_ALL = 40,
};

static inline uint32_t read_number(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline void write_number(uint8_t *at, uint32_t number)
{
    at[0] = (uint8_t)(number >> 24);
    at[1] = (uint8_t)(number >> 16);
    at[2] = (uint8_t)(number >> 8);
    at[3] = (uint8_t)number;
}

/* Writes the head of a request whose body has `size` bytes. */
static inline void write_head(uint8_t *at, enum packet_type type, size_t size)
{
    memcpy(at, "\0REQ", 4);
    write_number(at + 4, type);
    write_number(at + 8, (uint32_t)size);
}

#endif
