/** The types of what travels between client and daemon. Types only: importing this costs nothing when a program starts. */
export type * from "../gen/client.ts";
